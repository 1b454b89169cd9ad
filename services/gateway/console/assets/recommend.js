// A click in an answer brings the next answer into its place, without a new page.

export function recommend({ main }) {
  const place = main.querySelector("[data-answer]");
  place?.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches("[data-deed]")) return;
    event.preventDefault();
    place.querySelectorAll("button").forEach((button) => (button.disabled = true));
    const body = new URLSearchParams(new FormData(form));
    try {
      const answer = await fetch(form.action, { method: "POST", body, headers: { "X-Part": "answer" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const found = answer.ok ? page.body : page.querySelector("main");
      place.replaceChildren(...found.childNodes);
    } catch {
      const told = document.createElement("p");
      told.className = "verdict bad";
      told.setAttribute("role", "alert");
      told.textContent = "The gateway does not answer: the click may or may not have been taken.";
      place.prepend(told);
      place.querySelectorAll("button").forEach((button) => (button.disabled = false));
      return;
    }
    place.querySelector(".verdict")?.scrollIntoView({ block: "nearest" });
    place.querySelector("button")?.focus({ preventScroll: true });
  });
}
