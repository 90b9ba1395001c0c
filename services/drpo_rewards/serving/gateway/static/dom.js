// Small helpers over the document. Text is always set as text, so a file's name or a reward's words cannot be markup.

export const find = (id) => document.getElementById(id);

/** An element with properties, e.g. make("button", {type: "button", onclick: f}, "Remove"). */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** A number as people read it: four digits that matter, and no exponent where none is needed. */
export function readable(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2);
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
