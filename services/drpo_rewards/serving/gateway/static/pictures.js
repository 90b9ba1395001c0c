// The chosen pictures, from the file dialog, drag and drop, the clipboard or the example. Each has a button to remove it.

import {find, make, plural} from "./dom.js";

const KINDS = ["image/png", "image/jpeg", "image/webp"];

/** The chosen pictures. Fires "change" whenever they change. */
export class Pictures extends EventTarget {
  #entries = []; // {file, url}, in the order of the request

  get files() {
    return this.#entries.map((entry) => entry.file);
  }

  get count() {
    return this.#entries.length;
  }

  url(index) {
    return this.#entries[index].url;
  }

  add(files) {
    const listed = [...files];
    const fitting = listed.filter((file) => KINDS.includes(file.type));
    this.#entries.push(...fitting.map((file) => ({file, url: URL.createObjectURL(file)})));
    const others = listed.filter((file) => !fitting.includes(file)).map((file) => file.name);
    find("left-out").textContent = others.length ? `Not added, because only PNG, JPEG and WebP work: ${others.join(", ")}` : "";
    this.#changed();
  }

  replace(files) {
    this.#forget(this.#entries);
    this.add(files);
  }

  remove(index) {
    this.#forget([this.#entries[index]]);
    this.#changed();
    const buttons = find("chosen").querySelectorAll("button");
    (buttons[Math.min(index, buttons.length - 1)] ?? find("files")).focus();
  }

  /** Marks the picture that an error's field names (`images[3]`) and returns its file name, or null if it names none. */
  mark(field) {
    const index = Number(/^images\[(\d+)\]/.exec(field ?? "")?.[1] ?? -1);
    [...find("chosen").children].forEach((item, position) => item.classList.toggle("wrong", position === index));
    return this.#entries[index]?.file.name ?? null;
  }

  #forget(entries) {
    // Object URLs are not revoked: a ranking may still show the picture, and they hold no copy of the file.
    this.#entries = this.#entries.filter((entry) => !entries.includes(entry));
  }

  #changed() {
    const count = this.count;
    find("count").textContent = count ? `(${count})` : "";
    find("clear").hidden = !count;
    find("chosen").replaceChildren(...this.#entries.map(({file, url}, index) => make("li", {},
      make("img", {src: url, alt: file.name, title: file.name}),
      make("button", {
        type: "button", title: `Remove ${file.name}`, "aria-label": `Remove ${file.name}`,
        onclick: () => this.remove(index),
      }, "×"),
    )));
    find("rank").textContent = count ? `Rank ${plural(count, "picture")}` : "Rank";
    this.dispatchEvent(new Event("change"));
  }
}

/** Adds pictures from the file dialog, dropped anywhere on the page, or pasted. */
export function listen(pictures) {
  find("files").onchange = (event) => {
    pictures.add(event.target.files);
    event.target.value = ""; // so that the same file can be chosen again
  };
  const drop = find("drop");
  let depth = 0; // dragenter and dragleave also fire for child elements
  const over = (change) => {
    depth = Math.max(0, depth + change);
    drop.classList.toggle("over", depth > 0);
  };
  const bringsFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => bringsFiles(event) && over(1));
  addEventListener("dragleave", (event) => bringsFiles(event) && over(-1));
  addEventListener("dragover", (event) => bringsFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!bringsFiles(event)) return;
    event.preventDefault();
    over(-depth);
    pictures.add(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) pictures.add(event.clipboardData.files);
  });
}
