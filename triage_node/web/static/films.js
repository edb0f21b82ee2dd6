// The pictures of slices and what is drawn on them: fetched ahead of who scrolls, kept within a bound.

import { get } from "./node.js";
import { studyAddress } from "./words.js";

const KEPT = 160; // pictures of 512 x 512 take 1 MB each
const AHEAD = 14;
const BEHIND = 4;
const AT_A_TIME = 3; // a browser has six connections to one address, and one of them is the live list

export class Films {
  /** `facts` is what the node says of the slices of study `uid`. */
  constructor(uid, facts) {
    this.uid = uid;
    this.facts = facts;
    this.kept = new Map(); // "window number" -> promise of { image, outlines }, the latest last
    this.ready = new Set();
    this.wanted = []; // to be fetched ahead, the most urgent first
    this.running = 0;
  }

  /** Promise of { image, outlines } of slice `number`; rejects with words for people. */
  film(number, window) {
    const key = `${window} ${number}`;
    const kept = this.kept.get(key) ?? this.#fetch(number, window, key);
    this.kept.delete(key);
    this.kept.set(key, kept);
    for (const old of this.kept.keys()) {
      if (this.kept.size <= KEPT) break;
      this.kept.delete(old);
      this.ready.delete(old);
    }
    return kept;
  }

  /** Fetch what will be looked at next if scrolling goes on in `direction`, 1 or -1. */
  ahead(number, window, direction) {
    const steps = [];
    for (let step = 1; step <= AHEAD; step += 1) {
      steps.push(number + direction * step);
      if (step <= BEHIND) steps.push(number - direction * step);
    }
    this.wanted = steps
      .filter((one) => one >= 1 && one <= this.facts.slices && !this.kept.has(`${window} ${one}`))
      .map((one) => [one, window]);
    this.#goOn();
  }

  #goOn() {
    while (this.running < AT_A_TIME && this.wanted.length > 0) {
      const [number, window] = this.wanted.shift();
      if (this.kept.has(`${window} ${number}`)) continue;
      this.running += 1;
      this.film(number, window).catch(() => null).finally(() => { // who looks at the slice itself is told
        this.running -= 1;
        this.#goOn();
      });
    }
  }

  #fetch(number, window, key) {
    const address = `${studyAddress(this.uid)}/slices/${encodeURIComponent(this.facts.token)}/${number}`;
    const outlines = this.facts.kinds.length === 0 ? {} : this.#outlines(`${address}.json`);
    const film = Promise.all([picture(`${address}.png?window=${window}`), outlines])
      .then(([image, found]) => {
        this.ready.add(key);
        return { image, outlines: found };
      });
    film.catch(() => this.kept.delete(key)); // asked for again when it is looked at again
    return film;
  }

  async #outlines(address) {
    const answer = await get(address);
    if (!answer.ok) throw new Error(answer.words);
    return answer.body;
  }
}

async function picture(address) {
  let answer;
  try {
    answer = await fetch(address);
  } catch (error) {
    throw new Error("The node is not reached.", { cause: error });
  }
  if (!answer.ok) throw new Error((await answer.text()).trim() || `The node answered ${answer.status}.`);
  return createImageBitmap(await answer.blob());
}
