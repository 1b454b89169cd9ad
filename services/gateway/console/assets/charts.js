// Draws the charts of the page Now: five minutes, a line for what is usual, a paler one for the slowest.

const WIDTH = 300;
const HEIGHT = 76;
const SPAN_MS = 300_000;
const SPAN_MIN_MS = 60_000;
const SVG = "http://www.w3.org/2000/svg";

/** A number for people, to three digits or so. */
export function plain(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 100) return Math.round(value).toLocaleString("en");
  return value >= 10 ? value.toFixed(1) : value.toFixed(value >= 1 || value === 0 ? 1 : 2);
}

/** The end of a scale: 1, 2 or 5 times a power of ten. */
function ceiling(value) {
  const unit = 10 ** Math.floor(Math.log10(Math.max(value, 1e-3)));
  return unit * [1, 2, 5, 10].find((one) => one * unit >= value);
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Pieces of a line, apart where there is nothing. */
function pieces(points) {
  const found = [[]];
  for (const point of points) {
    if (point[1] === null) found.push([]);
    else found.at(-1).push(point);
  }
  return found.filter((piece) => piece.length > 0);
}

function draw(chart, readings) {
  const [group, name] = chart.dataset.chart.split(".");
  const values = readings.map((reading) => reading[group][name]);
  const two = values.map((value) => (Array.isArray(value) ? value : [value, null]));
  const last = two.at(-1) ?? [null, null];
  chart.querySelector("[data-figure]").textContent = plain(last[0]);
  const second = chart.querySelector("[data-second]");
  if (second) second.textContent = plain(last[1]);
  const most = ceiling(Math.max(...two.flat().filter((value) => value !== null), 1));
  chart.querySelector("[data-top]").textContent = `scale to ${most.toLocaleString("en")}`;
  const end = readings.at(-1).at_ms;
  const span = Math.min(Math.max(end - readings[0].at_ms, SPAN_MIN_MS), SPAN_MS);
  chart.querySelector("[data-since]").textContent = `${Math.round(span / 1000)} s ago`;
  const x = (at) => WIDTH * (1 - (end - at) / span);
  const y = (value) => HEIGHT - 2 - (value / most) * (HEIGHT - 6);
  const line = (at) => pieces(readings.map((reading, place) => [x(reading.at_ms), two[place][at] === null ? null : y(two[place][at])]));
  const path = (piece) => `M${piece.map(([left, top]) => `${left.toFixed(1)} ${top.toFixed(1)}`).join("L")}`;
  const drawn = [element("line", { class: "rule", x1: 0, x2: WIDTH, y1: 4, y2: 4 })];
  for (const piece of line(0)) {
    const area = `${path(piece)}L${piece.at(-1)[0].toFixed(1)} ${HEIGHT}L${piece[0][0].toFixed(1)} ${HEIGHT}Z`;
    drawn.push(element("path", { class: "area", d: area }), element("path", { class: "line", d: path(piece) }));
  }
  for (const piece of line(1)) drawn.push(element("path", { class: "line second", d: path(piece) }));
  chart.querySelector("svg").replaceChildren(...drawn);
}

export function charts({ main, follow }) {
  const all = [...main.querySelectorAll("[data-chart]")];
  let readings = [];
  const show = () => all.forEach((chart) => draw(chart, readings));
  follow({
    history: (found) => {
      readings = found;
      if (readings.length) show();
    },
    reading: (one) => {
      readings.push(one);
      readings = readings.filter((reading) => one.at_ms - reading.at_ms <= SPAN_MS);
      show();
    },
  });
}
