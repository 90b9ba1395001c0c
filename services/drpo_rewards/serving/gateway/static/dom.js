// Small helpers for the document. Text is never parsed as HTML, so file names and rewards' reasons cannot inject markup.

export const find = (id) => document.getElementById(id);

/** Creates an element with properties, e.g. make("button", {type: "button", onclick: f}, "Remove"). */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Formats a number with four significant digits, and an exponent only if it is very large or small. */
export function readable(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2);
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
