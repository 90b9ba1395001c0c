// The page: gathers a request from the form, sends it, and shows the answer or what is wrong.

import {find, make} from "./dom.js";
import * as example from "./example.js";
import {Pictures, listen as listenForPictures} from "./pictures.js";
import * as results from "./results.js";
import {Choice} from "./rewards.js";
import * as service from "./service.js";

const pictures = new Pictures();
const choice = new Choice();
let asked = null; // the last answered request: {files, options, response}

async function start() {
  try {
    choice.show(await service.models());
    find("key-section").hidden = true;
    forgive();
  } catch (problem) {
    find("rewards").replaceChildren();
    complain(problem);
  }
}

/** The request's options, or a complaint about the field that keeps us from asking. */
function options() {
  if (pictures.count < 2) throw wrong("files", "Add at least two pictures: one alone has no rank.");
  if (pictures.count > 256) throw wrong("files", "At most 256 pictures can be ranked at a time.");
  const prompt = find("prompt").value.trim();
  if (!prompt) throw wrong("prompt", "Say the prompt that the pictures were made from.");
  const built = {prompt, ...choice.request, details: true};
  if (built.rewards && !Object.values(built.rewards).some(Boolean)) {
    throw wrong("rewards", "Choose a reward, with a weight that is not 0.");
  }
  if (find("normalize").value) built.normalize = find("normalize").value;
  const metadata = find("metadata").value.trim();
  if (choice.wantMetadata.length && metadata) {
    try {
      built.metadata = JSON.parse(metadata);
    } catch (error) {
      throw wrong("metadata", `This is no JSON: ${error.message}`);
    }
  }
  return built;
}

function wrong(id, message) {
  return Object.assign(new Error(message), {id});
}

async function rank() {
  if (find("results").ariaBusy === "true") return;
  forgive();
  const files = pictures.files;
  const sent = files.map((file, index) => ({name: file.name, url: pictures.url(index)}));
  try {
    const request = options();
    busy(true);
    const response = await service.rank(files, request);
    results.show(response, sent);
    asked = {files, options: request, response};
    if (innerWidth < 900) find("results-title").scrollIntoView();
  } catch (problem) {
    complain(problem);
  } finally {
    busy(false);
  }
}

function busy(is) {
  find("results").ariaBusy = String(is);
  find("rank").disabled = is;
}

function complain(problem) {
  const name = pictures.mark(problem.field);
  const message = name ? problem.message.replace(problem.field, name) : problem.message; // people know their files' names
  find("problem").replaceChildren(...(problem.title ? [make("b", {}, problem.title)] : []), message);
  find("problem").hidden = false;
  if (problem.code === "unauthenticated") find("key-section").hidden = false;
  if (name) return;
  const field = problem.id ?? {unauthenticated: "key"}[problem.code] ?? {prompt: "prompt", metadata: "metadata"}[problem.field];
  if (!field) return;
  find(field).setAttribute("aria-invalid", "true");
  find(field).focus();
}

function forgive() {
  find("problem").hidden = true;
  pictures.mark(null);
  for (const field of document.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

/** The form was changed: an error may be mended, and a ranking that is shown is not of these settings. */
function changed() {
  forgive();
  find("metadata-section").hidden = !choice.wantMetadata.length;
  find("metadata-for").textContent = choice.wantMetadata.join(", ");
  if (asked) {
    find("announcement").className = "summary stale";
    find("announcement").textContent = "Something was changed since this ranking. Rank again to see what it does.";
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
  } catch { // browsers allow it on https and on this machine only
    find("copied").textContent = "this browser does not let a page copy";
  }
  setTimeout(() => (find("copied").textContent = ""), 3000);
}

listenForPictures(pictures);
results.listen();
pictures.addEventListener("change", changed);
choice.addEventListener("change", changed);
for (const id of ["prompt", "metadata", "normalize"]) find(id).addEventListener("input", changed);
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
find("copy-curl").onclick = () => copy(service.asCurl(asked.files, asked.options));
find("copy-json").onclick = () => copy(JSON.stringify(asked.response, null, 2));
start();
