// What the chosen rewards need beyond a prompt and pictures, as `GET /v1/models` says: hints, and fields for metadata.

import {find, make} from "./dom.js";

const reads = ({metadata_schema: schema}) => schema && Object.keys(schema.properties ?? {any: true}).length;
// A schema with required members is entered as JSON; one with optional texts only gets a field for each of them.
const isText = (schema) => [schema, ...(schema.anyOf ?? [])].some((one) => one.type === "string");

/** Shows the hints and fields of the chosen rewards. Text that was entered stays in fields that are shown again. */
export function show(rewards) {
  const readers = rewards.filter((reward) => reward.needs_metadata || reads(reward));
  find("metadata-section").hidden = !readers.length;
  find("metadata-for").textContent = readers.map((reward) => reward.name).join(", ");
  find("prompt-needs").textContent = rewards.filter((reward) => reward.needs_in_prompt)
    .map((reward) => `${reward.name}: ${reward.needs_in_prompt}`).join("; ");
  const texts = readers.flatMap((reward) => Object.entries(reward.metadata_schema?.properties ?? {})
    .filter(([, schema]) => isText(schema) && !reward.metadata_schema.required?.length).map((entry) => [reward, ...entry]));
  const before = new Map(inputs().map((input) => [input.name, input.value]));
  find("metadata-fields").replaceChildren(...texts.map(([reward, name, schema]) => make("label", {className: "field"},
    make("b", {}, name), make("small", {}, [reward.name, schema.description].filter(Boolean).join(": ")),
    make("input", {type: "text", name, value: before.get(name) ?? "", autocomplete: "off"}))));
  const structured = readers.filter((reward) => !texts.some(([owner]) => owner === reward));
  find("metadata-json").hidden = !structured.length;
  const example = structured.map((reward) => reward.metadata_schema?.examples?.[0]).find(Boolean);
  find("metadata").placeholder = example ? JSON.stringify(example) : "";
}

/** The metadata of a request, or null if nothing was entered. Throws a SyntaxError if the JSON is not valid. */
export function metadata() {
  if (find("metadata-section").hidden) return null;
  const text = find("metadata-json").hidden ? "" : find("metadata").value.trim();
  const fields = inputs().filter((input) => input.value.trim()).map((input) => [input.name, input.value.trim()]);
  const built = {...(text ? JSON.parse(text) : {}), ...Object.fromEntries(fields)};
  return text || fields.length ? built : null;
}

function inputs() {
  return [...find("metadata-fields").querySelectorAll("input")];
}
