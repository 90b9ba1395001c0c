// The ranking: pictures, best first, each with its place, its combined score and the score of every reward.

import {find, make, plural, readable} from "./dom.js";

const COMBINED = {zscore: "z-scores", rank: "ranks", none: "raw scores"};

/** Shows a response of /v1/rank. `pictures` are {name, url}, in the order of the request. */
export function show(response, pictures) {
  const rewards = Object.entries(response.rewards);
  const mixture = rewards.map(([name, {weight}]) => `${name} ${Math.round(100 * weight)} %`.replace("-", "−")).join(", ");
  const spent = Math.round(response.timings_ms.total);
  const best = response.ranks.filter((rank) => rank === 0).length;
  find("empty").hidden = true;
  find("results-tools").hidden = false;
  find("announcement").className = "summary";
  find("announcement").textContent = response.all_tied
    ? `All ${pictures.length} pictures tie: these rewards prefer none of them. (${mixture}, ${spent} ms)`
    : `${plural(pictures.length, "picture")} by ${COMBINED[response.normalize]} of ${mixture}, in ${spent} ms.` +
      (best > 1 ? ` ${best} share first place.` : "");
  find("ranked").replaceChildren(...response.order.map((index) => card(response, rewards, pictures, index)));
}

function card(response, rewards, pictures, index) {
  const place = response.ranks[index] + 1;
  const {name, url} = pictures[index];
  const reasons = rewards.flatMap(([, result]) => result.details?.[index]?.reasons ?? []);
  const image = make("img", {src: url, alt: name, onload: () => image.classList.toggle("small", image.naturalWidth < 200)});
  return make("li", {className: !response.all_tied && place === 1 ? "best" : ""},
    make("button", {
      type: "button", className: "picture", title: "View full size",
      "aria-label": `${name}, place ${place}: view full size`, onclick: () => enlarge(response, pictures, index),
    }, image, make("span", {className: "place", "aria-hidden": "true"}, String(place))),
    make("h3", {title: name}, name),
    make("dl", {}, ...rewards.flatMap(([reward, result]) => line(reward, result.scores, index, result.weight)),
      ...(rewards.length > 1 ? line("combined", response.combined, index) : [])),
    ...(reasons.length ? [make("ul", {className: "reasons"}, ...reasons.map((reason) => make("li", {}, reason)))] : []),
  );
}

/** A score with a bar from the group's worst to its best. With a negative weight, the lowest score is the best. */
function line(label, scores, index, weight = 1) {
  const low = Math.min(...scores);
  const span = Math.max(...scores) - low;
  const height = span ? (scores[index] - low) / span : 0;
  const meter = make("meter", {min: 0, max: 1, value: weight < 0 && span ? 1 - height : height});
  return [
    make("dt", {className: label === "combined" ? "combined" : "", title: label}, label),
    make("dd", {}, readable(scores[index])),
    make("dd", {className: "bar", "aria-hidden": "true"}, meter),
  ];
}

let large = null; // what the dialog shows: {response, pictures, position}; position is that in the order

function enlarge(response, pictures, index) {
  large = {response, pictures, position: response.order.indexOf(index)};
  step(0);
  find("large").showModal();
}

function step(by) {
  const {response, pictures, position} = large;
  large.position = Math.min(Math.max(position + by, 0), pictures.length - 1);
  const index = response.order[large.position];
  const image = find("large-image");
  image.onload = () => image.classList.toggle("small", image.naturalWidth < 200);
  image.src = pictures[index].url;
  image.alt = pictures[index].name;
  find("large-caption").textContent = `${response.ranks[index] + 1}. ${pictures[index].name}`;
  find("previous").disabled = large.position === 0;
  find("next").disabled = large.position === pictures.length - 1;
}

/** Handles the dialog's buttons and keys: arrows change the picture. Escape closes it, as in every dialog. */
export function listen() {
  find("previous").onclick = () => step(-1);
  find("next").onclick = () => step(1);
  find("large").onkeydown = (event) => {
    const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (by) step(by);
  };
  find("large").onclick = (event) => event.target === find("large") && find("large").close(); // a click outside the picture
}
