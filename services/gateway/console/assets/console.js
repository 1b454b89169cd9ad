// What pages have in common: the stream that keeps them up to date, and parts that are loaded later.

import { charts } from "./charts.js";
import { recommend } from "./recommend.js";
import { tail } from "./tail.js";

const main = document.querySelector("main");
const notice = document.querySelector("[data-connection]");
const kinds = { now: charts, tail, recommend };

/** Say that the page is not kept up to date at the moment; an empty text: it is. */
function tell(text) {
  if (notice) {
    notice.textContent = text;
    notice.hidden = !text;
  }
}

/** Put a part of the page, rendered by the server, in place of the one before; not under somebody's fingers. */
function replace({ target, html }) {
  const part = document.querySelector(`[data-live="${CSS.escape(target)}"]`);
  if (!part) return;
  const put = () => {
    const open = [...part.querySelectorAll("details[open][id]")].map((one) => one.id);
    const template = document.createElement("template");
    template.innerHTML = html;
    part.replaceChildren(template.content);
    open.forEach((id) => part.querySelector(`#${CSS.escape(id)}`)?.setAttribute("open", ""));
  };
  if (part.contains(document.activeElement)) {
    part.addEventListener("focusout", put, { once: true });
  } else {
    put();
  }
}

/** Follow the page's stream; answers a function that ends it. */
function follow(address, handlers) {
  const source = new EventSource(address);
  const all = { html: replace, ...handlers };
  for (const [name, handle] of Object.entries(all)) {
    source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
  }
  source.addEventListener("open", () => tell(""));
  source.addEventListener("error", () => tell("The connection to the gateway is gone; trying again …"));
  addEventListener("pagehide", () => source.close());
  return () => source.close();
}

async function load(part) {
  try {
    const answer = await fetch(part.dataset.load);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const found = answer.ok ? page.body : page.querySelector("main");
    part.replaceChildren(...found.childNodes);
  } catch {
    part.textContent = "It could not be read: the gateway does not answer.";
  }
}

document.querySelectorAll("[data-load]").forEach(load);
const kind = kinds[main.dataset.page];
const stream = main.dataset.stream;
if (kind) {
  kind({ main, follow: (handlers) => follow(stream, handlers) });
} else if (stream) {
  follow(stream, {});
}
