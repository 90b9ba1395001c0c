// The page: builds a request from the form, sends it, and shows the ranking or an error.

import {find, make} from "./dom.js";
import * as example from "./example.js";
import * as needs from "./needs.js";
import {Pictures, listen as listenForPictures} from "./pictures.js";
import * as results from "./results.js";
import {Choice} from "./rewards.js";
import * as service from "./service.js";

const pictures = new Pictures();
const choice = new Choice();
let last = null; // the last ranking: {files, options, response}

async function start() {
  try {
    choice.show(await service.models());
    find("key-section").hidden = true;
    clearErrors();
  } catch (problem) {
    find("rewards").replaceChildren();
    showError(problem);
  }
}

/** Returns the request's options. Throws an error that names the field if the form is not valid. */
function options() {
  if (pictures.count < 2) throw fieldError("files", "Add at least two pictures: one alone has no rank.");
  if (pictures.count > 256) throw fieldError("files", "At most 256 pictures can be ranked at once.");
  const prompt = find("prompt").value.trim();
  if (!prompt) throw fieldError("prompt", "Enter the prompt that the pictures were made from.");
  const built = {prompt, ...choice.request, details: true};
  if (built.rewards && !Object.values(built.rewards).some(Boolean)) {
    throw fieldError("rewards", "Choose at least one reward with a weight other than 0.");
  }
  if (find("normalize").value) built.normalize = find("normalize").value;
  try {
    const metadata = needs.metadata();
    if (metadata) built.metadata = metadata;
  } catch (error) {
    throw fieldError("metadata", `This is not valid JSON: ${error.message}`);
  }
  return built;
}

function fieldError(id, message) {
  return Object.assign(new Error(message), {id});
}

async function rank() {
  if (find("results").ariaBusy === "true") return;
  clearErrors();
  const files = pictures.files;
  const sent = files.map((file, index) => ({name: file.name, url: pictures.url(index)}));
  try {
    const request = options();
    setBusy(true);
    const response = await service.rank(files, request);
    results.show(response, sent);
    last = {files, options: request, response};
    if (innerWidth < 900) find("results-title").scrollIntoView();
  } catch (problem) {
    showError(problem);
  } finally {
    setBusy(false);
  }
}

function setBusy(busy) {
  find("results").ariaBusy = String(busy);
  find("rank").disabled = busy;
}

function showError(problem) {
  const name = pictures.mark(problem.field);
  const message = name ? problem.message.replace(problem.field, name) : problem.message; // show the file's name, not images[3]
  find("problem").replaceChildren(...(problem.title ? [make("b", {}, problem.title)] : []), message);
  find("problem").hidden = false;
  if (problem.code === "unauthenticated") find("key-section").hidden = false;
  if (name) return;
  const field = problem.id ?? {unauthenticated: "key"}[problem.code] ?? {prompt: "prompt", metadata: "metadata"}[problem.field];
  if (!field) return;
  find(field).setAttribute("aria-invalid", "true");
  find(field).focus();
}

function clearErrors() {
  find("problem").hidden = true;
  pictures.mark(null);
  for (const field of document.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

/** Handles a change of the form: errors may be fixed, and the ranking on display belongs to other settings. */
function changed() {
  clearErrors();
  if (last) {
    find("announcement").className = "summary stale";
    find("announcement").textContent = "The form has changed since this ranking. Rank again to update it.";
  }
}

async function useExample(event) {
  pictures.replace(await example.files());
  find("prompt").value = example.PROMPT;
  find("metadata").value = example.METADATA;
  changed();
  if (event.target.id === "try") rank();
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    find("copied").textContent = "copied";
  } catch { // browsers allow it only on https and on localhost
    find("copied").textContent = "this browser does not allow copying here";
  }
  setTimeout(() => (find("copied").textContent = ""), 3000);
}

listenForPictures(pictures);
results.listen();
pictures.addEventListener("change", changed);
choice.addEventListener("change", () => {
  needs.show(choice.chosen);
  changed();
});
for (const id of ["prompt", "metadata", "metadata-fields", "normalize"]) find(id).addEventListener("input", changed);
find("clear").onclick = () => {
  pictures.replace([]);
  find("files").focus();
};
find("example").onclick = find("try").onclick = useExample;
find("use-key").onclick = () => {
  service.setKey(find("key").value);
  start();
};
find("key").onkeydown = (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  find("use-key").click();
};
find("form").onsubmit = (event) => {
  event.preventDefault();
  rank();
};
addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) rank();
});
find("copy-curl").onclick = () => copy(service.asCurl(last.files, last.options));
find("copy-json").onclick = () => copy(JSON.stringify(last.response, null, 2));
start();
