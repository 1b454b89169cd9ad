// The live tail: the newest messages on top, no more of them than a page can hold.

const ROWS_MAX = 200;

function cell(text, name) {
  const made = document.createElement("td");
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

function row(one) {
  const made = document.createElement("tr");
  const at = document.createElement("td");
  const link = document.createElement("a");
  link.href = one.href;
  link.textContent = one.at;
  at.append(link);
  const kind = document.createElement("td");
  const tag = document.createElement("span");
  tag.className = "tag";
  tag.textContent = one.kind;
  kind.append(tag);
  made.append(at, kind, cell(one.user, "id"), cell(one.items, "id"), cell(one.text), cell(`${one.partition} @ ${one.offset}`, "number muted"));
  return made;
}

export function tail({ main, follow }) {
  const rows = main.querySelector("[data-rows]");
  const counts = main.querySelector("[data-counts]");
  const pause = main.querySelector("[data-pause]");
  const table = main.querySelector(".table");
  const count = (number) => number.toLocaleString("en");

  const take = ({ rows: came, seen, matched, left_out: leftOut }) => {
    rows.prepend(...came.reverse().map(row));
    while (rows.children.length > ROWS_MAX) rows.lastElementChild.remove();
    const fast = leftOut ? `, ${count(leftOut)} of them too fast to show` : "";
    counts.textContent = `${count(seen)} came, ${count(matched)} match${fast}. Times are UTC.`;
  };

  let end = follow({ rows: take });
  const toggle = () => {
    const paused = pause.getAttribute("aria-pressed") === "true";
    pause.setAttribute("aria-pressed", String(!paused));
    pause.textContent = paused ? "Pause" : "Go on";
    if (paused) {
      rows.replaceChildren();
      end = follow({ rows: take });
    } else {
      end();
      counts.textContent += " Paused.";
    }
  };
  pause.addEventListener("click", toggle);
  // A row that somebody is about to click must not move away.
  table.addEventListener("keydown", (event) => {
    if (event.key === " " && event.target === table) {
      event.preventDefault();
      toggle();
    }
  });
}
