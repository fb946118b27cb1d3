"use strict";
// The data of the page: lines of JSON, compressed. Rollouts are parsed one by one, when they are looked at.

async function unpack(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const lines = (await new Response(stream).text()).split("\n");
  const summary = JSON.parse(lines[0]);
  const index = JSON.parse(lines[1]).map(([run, step, level, verdict, account, advantage, tokens], place) => ({
    run, step, level, verdict, account, advantage, tokens, line: lines[place + 2],
  }));
  return { ...summary, rollouts: index };
}

function embedded() {
  const text = atob(byId("data").textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  byId("data").remove();
  return unpack(bytes);
}

// Asks the server for newer data; calls `use` with them, and `say` with how it stands.
function follow(use, say) {
  let tag = null;
  async function ask() {
    try {
      const answer = await fetch("data", { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
      if (answer.status === 200) {
        tag = answer.headers.get("ETag");
        use(await unpack(await answer.arrayBuffer()));
      } else if (answer.status !== 304) throw new Error(answer.statusText);
      say(`live, ${new Date().toLocaleTimeString()}`);
    } catch {
      say("the server does not answer");
    }
    setTimeout(ask, 4000);
  }
  setTimeout(ask, 2000);
}
