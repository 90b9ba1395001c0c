// The choice of rewards and weights: a configured mixture, or your own weights.

import {find, make} from "./dom.js";

const OWN = "your own weights";

/** The chosen rewards. Fires "change" whenever the choice changes. */
export class Choice extends EventTarget {
  #rewards = [];
  #mixtures = [];
  #mixture = null; // name of the chosen mixture; null for your own weights

  show({rewards, mixtures}) {
    this.#rewards = rewards;
    this.#mixtures = mixtures;
    find("mixtures").replaceChildren(...[...mixtures.map((mixture) => mixture.name), null].map((name) => make("label", {},
      make("input", {type: "radio", name: "mixture", value: name ?? "", onchange: () => this.#choose(name)}),
      make("span", {}, name ?? OWN),
    )));
    find("rewards").replaceChildren(...rewards.map((reward) => this.#row(reward)));
    this.#choose((mixtures.find((mixture) => mixture.name === "default") ?? mixtures[0])?.name ?? null);
  }

  /** This choice's part of the request: {mixture} or {rewards}. */
  get request() {
    return this.#mixture === null ? {rewards: this.#weights()} : {mixture: this.#mixture};
  }

  /** The chosen rewards, as the service describes them. */
  get chosen() {
    const weights = this.#weights();
    return this.#rewards.filter((reward) => reward.name in weights);
  }

  #row(reward) {
    const notes = [reward.higher_is_better ? "" : "lower is better", reward.range ? `scores ${reward.range.join(" to ")}` : ""];
    const use = make("input", {type: "checkbox", onchange: () => this.#toggle(item)});
    const weight = make("input", {
      type: "number", step: "0.1", "aria-label": `Weight of ${reward.name}`, oninput: () => this.#weightChanged(item),
    });
    const item = make("li", {},
      make("label", {title: reward.version}, use, make("b", {}, reward.name),
        make("small", {}, [reward.description.replace(/\.$/, ""), ...notes].filter(Boolean).join(" · "))),
      weight,
      make("output", {"aria-label": `Share of ${reward.name}`}),
    );
    Object.assign(item, {reward, use, weight, share: item.lastChild});
    return item;
  }

  #items() {
    return [...find("rewards").children];
  }

  #weights() {
    const chosen = this.#items().filter((item) => item.use?.checked);
    return Object.fromEntries(chosen.map((item) => [item.reward.name, Number(item.weight.value)]));
  }

  #choose(name) {
    this.#mixture = name;
    const radios = [...find("mixtures").querySelectorAll("input")];
    radios.find((radio) => radio.value === (name ?? "")).checked = true;
    if (name !== null) {
      const weights = this.#mixtures.find((mixture) => mixture.name === name).weights;
      for (const item of this.#items()) {
        item.use.checked = item.reward.name in weights;
        item.weight.value = weights[item.reward.name] ?? "";
      }
    }
    this.#changed();
  }

  #toggle(item) {
    if (item.use.checked && !Number(item.weight.value)) item.weight.value = 1;
    this.#choose(null);
  }

  #weightChanged(item) {
    item.use.checked = item.weight.value !== "";
    this.#choose(null);
  }

  #changed() {
    const sizes = Object.values(this.#weights()).map(Math.abs);
    const total = sizes.reduce((sum, size) => sum + size, 0);
    for (const item of this.#items()) {
      const share = item.use.checked && total ? Number(item.weight.value) / total : 0;
      item.share.textContent = item.use.checked ? `${Math.round(100 * share)} %`.replace("-", "−") : "";
      item.classList.toggle("unused", !item.use.checked);
    }
    this.dispatchEvent(new Event("change"));
  }
}
