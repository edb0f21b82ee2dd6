// Asking the node: JSON in both directions, and words for people where it does not work.

/** Who looks at this page, by the node's log-in; "local" where it has none. */
export class Who extends EventTarget {
  constructor() {
    super();
    this.name = "local";
    this.#learn();
  }

  async #learn() {
    const answer = await get("/session");
    if (!answer.ok || !answer.body.name) return;
    this.name = answer.body.name;
    this.dispatchEvent(new Event("known"));
  }
}

/** Fetch `address`; gives { ok, status, body, words }, never throws for a lost connection. */
export async function get(address) {
  return answered(() => fetch(address, { headers: { Accept: "application/json" } }));
}

/** Post `content`; the header shows that the request comes from this page. */
export async function ask(address, content) {
  return answered(() => fetch(address, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": cookie("csrf") },
    body: JSON.stringify(content),
  }));
}

async function answered(request) {
  let answer;
  try {
    answer = await request();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return { ok: false, status: 0, body: null, words: "The node is not reached: nothing was changed." };
  }
  let body = null;
  try {
    body = await answer.json();
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  const words = answer.ok ? "" : `${sentence(body?.error ?? `the node answered ${answer.status}`)}.`;
  return { ok: answer.ok, status: answer.status, body, words };
}

function cookie(name) {
  const found = document.cookie.split("; ").find((pair) => pair.startsWith(`${name}=`));
  return found === undefined ? "" : decodeURIComponent(found.slice(name.length + 1));
}

function sentence(words) {
  return words.charAt(0).toUpperCase() + words.slice(1).replace(/\.$/, "");
}
