// Calls to the ranking service. URLs are relative, so the page works under any prefix.

const KEY = "drpo-rewards-key";

/** A problem document of the service (RFC 9457), or an error that prevented one. */
export class Problem extends Error {
  constructor(document) {
    super(document.detail || document.title);
    this.title = document.title;
    this.code = document.code;
    this.field = document.field;
  }
}

export const hasKey = () => Boolean(sessionStorage.getItem(KEY));
export const setKey = (key) => sessionStorage.setItem(KEY, key);

async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = key ? {authorization: `Bearer ${key}`} : {};
  let response;
  try {
    response = await fetch(path, {...options, headers});
  } catch {
    throw new Problem({title: "The service does not answer", code: "unreachable", detail: "Is it still running?"});
  }
  const text = await response.text();
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    throw new Problem({title: `The service answered ${response.status}`, code: "http", detail: text.slice(0, 300)});
  }
  if (!response.ok) throw new Problem(body);
  return body;
}

/** Returns the service's {rewards, mixtures}. */
export async function models() {
  const all = (await call("v1/models")).models;
  return {
    rewards: all.filter((model) => model.kind === "reward"),
    mixtures: all.filter((model) => model.kind === "mixture"),
  };
}

/** Ranks `files`, in this order, with the given options of a request. */
export function rank(files, options) {
  const form = new FormData();
  form.append("request", JSON.stringify(options));
  for (const file of files) form.append("images", file, file.name);
  return call("v1/rank", {method: "POST", body: form});
}

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** Returns the same call as a shell command. */
export function asCurl(files, options) {
  const url = new URL("v1/rank", document.baseURI);
  return [
    `curl -s ${url}`,
    ...(hasKey() ? [`-H "authorization: Bearer $DRPO_REWARDS_API_KEY"`] : []),
    `-F ${quoted(`request=${JSON.stringify(options)};type=application/json`)}`,
    ...files.map((file) => `-F ${quoted(`images=@${file.name}`)}`),
  ].join(" \\\n  ");
}
