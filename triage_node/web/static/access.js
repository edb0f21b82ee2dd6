// Who is logged in: shown in the head, told to the node while somebody is there, and taken to the log-in when it ends.

const TOLD_EVERY_MS = 60_000;
const SIGNS_OF_LIFE = ["keydown", "pointerdown", "wheel"];

/** The token that every writing request sends along as X-CSRF-Token. */
export function token() {
  return document.cookie.split("; ").find((cookie) => cookie.startsWith("csrf="))?.slice("csrf=".length) ?? "";
}

export class Access {
  constructor(stream) {
    this.toldAt = Date.now(); // opening the page has been a sign of life
    this.leaving = false;
    stream.addEventListener("state", () => stream.state === "lost" && this.#ask());
    document.addEventListener("visibilitychange", () => document.hidden || this.#ask());
    for (const sign of SIGNS_OF_LIFE) addEventListener(sign, () => this.#alive(), { passive: true });
    this.#ask();
  }

  async #ask() {
    try {
      const answer = await fetch("/session", { headers: { Accept: "application/json" } });
      if (answer.status === 401) this.#toLogIn();
      else if (answer.ok) this.#show(await answer.json());
    } catch {
      // The node is gone: the head of the page says so.
    }
  }

  #show({ name, role, how }) {
    const form = document.getElementById("who");
    form.hidden = how === "local";
    form.querySelector("b").textContent = name;
    form.querySelector("b").title = `${name}, ${role}`;
    form.querySelector("button").hidden = how !== "session";
    form.onsubmit = () => {
      this.leaving = true;
      form.elements.csrf.value = token();
    };
  }

  async #alive() {
    if (Date.now() - this.toldAt < TOLD_EVERY_MS) return;
    this.toldAt = Date.now();
    try {
      const answer = await fetch("/session/active", { method: "POST", headers: { "X-CSRF-Token": token() } });
      if (answer.status === 401) this.#toLogIn();
    } catch {
      // as above
    }
  }

  #toLogIn() {
    if (this.leaving) return;
    this.leaving = true;
    location.replace(`/login?next=${encodeURIComponent(location.pathname + location.search + location.hash)}`);
  }
}
