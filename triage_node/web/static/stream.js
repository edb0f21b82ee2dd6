// The live connection. It says at every moment whether what is shown is current, and since when it is not.

const SILENCE_MS = 25_000; // the node says something at least every 10 s
const REOPEN_MS = 2_000;

export class Stream extends EventTarget {
  /** Emits "status", "list" and "change" (detail: what the node said) and "state": live, connecting, lost or trouble. */
  constructor(address) {
    super();
    this.address = address;
    this.state = "connecting";
    this.words = "";
    this.updatedAt = null; // Date of the last list or change
    this.heardAt = 0;
    this.heard = ""; // the last message, so that only what is new comes after a break
    this.offset_ms = 0; // the node's clock minus this workstation's
    this.source = null;
    setInterval(() => this.#watch(), 1000);
    // A browser allows six streams to one address: hidden pages give theirs back, and ask again when they are seen.
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#close() : this.#open()));
    addEventListener("pagehide", () => this.#close());
    addEventListener("pageshow", (event) => event.persisted && this.#open());
    if (!document.hidden) this.#open();
  }

  /** Milliseconds since 1970 by the node's clock. */
  now() {
    return Date.now() + this.offset_ms;
  }

  #open() {
    this.#close();
    this.heardAt = Date.now();
    const source = new EventSource(this.heard ? `${this.address}?heard=${encodeURIComponent(this.heard)}` : this.address);
    this.source = source;
    source.addEventListener("status", (event) => {
      this.heardAt = Date.now();
      this.#emit("status", JSON.parse(event.data));
    });
    for (const name of ["list", "change"]) {
      source.addEventListener(name, (event) => {
        const said = JSON.parse(event.data);
        this.heard = event.lastEventId;
        this.updatedAt = new Date();
        this.heardAt = Date.now();
        this.offset_ms = Date.parse(said.at) - Date.now();
        this.#become("live", "");
        this.#emit(name, said);
      });
    }
    source.addEventListener("trouble", (event) => {
      this.heardAt = Date.now();
      this.#become("trouble", JSON.parse(event.data).words);
    });
    source.addEventListener("error", () => {
      this.#become("lost", "");
      // The browser reopens a broken stream by itself, but not one that was answered with an error.
      if (source.readyState === EventSource.CLOSED && this.source === source) {
        setTimeout(() => this.source === source && !document.hidden && this.#open(), REOPEN_MS);
      }
    });
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #close() {
    this.source?.close();
    this.source = null;
    if (this.state === "live") this.#become("connecting", "");
  }

  #watch() {
    if (this.source !== null && Date.now() - this.heardAt > SILENCE_MS) {
      this.#become("lost", "");
      this.#open();
    }
  }

  #become(state, words) {
    const changed = state !== this.state || words !== this.words;
    this.state = state;
    this.words = words;
    if (changed || state === "live") this.dispatchEvent(new Event("state"));
  }
}
