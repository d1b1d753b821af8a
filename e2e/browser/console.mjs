// Uses the console of a sidecar as people do, in a real Chromium. Usage: console.mjs PACKAGES URL whole|killed [PICTURES]
// PACKAGES is the folder with node_modules. `whole` expects three members and reads of the dataset cnf-metrics, `killed` that
// sidecar-2 has just been killed. Each failed check is a line on standard output; the last line says how many checks there were.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [packages, url, phase, pictures] = process.argv.slice(2);
const require = createRequire(packages + "/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const hostile = `"><img src=x onerror="document.title='pwned'"><script>document.title='pwned'</script>`;

let checks = 0, failures = 0;
function check(ok, what, got = "") {
  checks++;
  if (ok) return;
  failures++;
  console.log(`FAILED: ${what}${got === "" ? "" : ": got " + got}`);
}

// --no-sandbox: tests run as root. The page is our own.
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-dev-shm-usage"] });

// open opens the console, and afterwards checks what no page may do: log errors, or load anything from elsewhere.
async function open(options, use, prepare = async () => {}) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 900 }, ...options });
  const page = await context.newPage(), noise = [], foreign = [];
  page.on("console", m => { if (m.type() === "error" || m.type() === "warning") noise.push(m.text()); });
  page.on("pageerror", e => noise.push(String(e)));
  page.on("dialog", d => { noise.push("dialog " + d.message()); d.dismiss(); });
  page.on("request", r => { if (!r.url().startsWith(url)) foreign.push(r.url()); });
  await prepare(page);
  await page.goto(url);
  await page.waitForSelector(".tile .figure");
  await use(page);
  check(noise.length === 0, "the page logs no error", noise.join("; "));
  check(foreign.length === 0, "the page loads nothing from elsewhere", foreign.join(" "));
  await context.close();
}

// accessible checks a page by the rules of WCAG 2.2 A and AA. Evaluated by the debugger, so that the policy of the page does not apply.
async function accessible(page, where) {
  await page.evaluate(axe);
  const result = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
  const broken = result.violations.map(v => `${v.id} at ${v.nodes.slice(0, 3).map(n => n.target.join(" ") + " " + (n.any[0]?.message ?? "")).join(", ")}`);
  check(result.passes.length > 10 && broken.length === 0, `${where} is accessible`, broken.join("; "));
}

async function explain(page, key) {
  await page.fill("#explain-key", key);
  await page.press("#explain-key", "Enter");
  await page.waitForSelector("#explain-answer > *");
}

const text = (page, selector) => page.locator(selector).first().innerText();

async function historyAtOpening() {
  let requests = 0;
  await open({}, async page => {
    check(requests === 1, "the first response has all that is drawn", requests);
    const reads = await page.locator("path.band.hit").getAttribute("d");
    check((reads ?? "").split("L").length > 4, "the chart of reads has several intervals", reads);
    const latency = await page.locator("path.l-read-p99").getAttribute("d");
    check((latency ?? "").includes("L"), "the chart of latencies has a line", latency);
    check(/^[\d,.]+$/.test(await text(page, ".tile .figure")), "the first tile has a number", await text(page, ".tile .figure"));
    check((await text(page, "#events")).includes("started, version"), "the start is in the list of changes");
    check(await page.locator("#members tbody tr").count() === 3, "there are three members");
    check((await text(page, "#datasets")).includes("cnf-metrics"), "the table of datasets has cnf-metrics");
    await page.selectOption("#scope", { label: "sidecar-2" });
    check((await page.locator("path.band.hit").getAttribute("d")) !== reads, "the chart of one member differs from that of all");
    if (pictures) await page.screenshot({ path: `${pictures}/light.png`, fullPage: true });
    await accessible(page, "the light page");
  }, async page => page.on("request", r => { if (r.url().includes("/api/history")) requests++; }));
}

async function path() {
  await open({}, async page => {
    await explain(page, "key-1");
    const steps = await page.locator(".path li").allInnerTexts();
    check(steps.length >= 2 && steps.at(-1).includes("Origin"), "the path ends at the origin", steps.join(" | "));
    check(steps.filter(s => s.includes("answers\n") || s.includes(" answers")).length >= 1, "one step answers", steps.join(" | "));
    check(await page.locator(".explained tbody tr").count() === 3, "each member says what it has");
    check(await page.locator(".needle").count() === 1, "the ring shows the place of the key");
    await accessible(page, "an explanation");
    await page.click("#explain-clear");
    check(await page.locator("#explain-answer > *").count() === 0, "Clear removes the explanation");
  });
}

// Keys may be anything, and other members may report anything.
async function hostileText() {
  await open({}, async page => {
    await explain(page, hostile);
    check((await text(page, "#explain-answer")).includes("<img src=x"), "the key is shown as text");
    await page.waitForFunction(() => document.querySelector("#hot tbody tr"));
    check((await text(page, "#hot")).includes("<script>"), "a hot key is shown as text");
    check((await text(page, "#members")).includes("<img"), "the id of a member is shown as text");
    check((await text(page, "#events")).includes("<img"), "an event is shown as text");
    const made = await page.locator("main img, main script, body > script, iframe, [onerror]").count();
    check(made === 0, "no markup is made from text", made);
    check((await page.title()) !== "pwned", "no script of a key runs");
  }, async page => {
    await page.route("**/api/cluster", async route => {
      const response = await route.fetch(), body = await response.json();
      body.members[1].id = hostile;
      body.members[1].state.hot_keys = [{ dataset: hostile, key: hostile, key_bytes: hostile.length, fetches_per_second: 500 }];
      await route.fulfill({ response, json: body });
    });
    await page.route("**/api/history*", async route => {
      const response = await route.fetch(), body = await response.json();
      body.events.push({ at: new Date().toISOString(), kind: hostile, text: hostile, member: hostile });
      for (const s of body.series) if (s.scope !== "all") s.name += hostile;
      await route.fulfill({ response, json: body });
    });
  });
}

async function darkTheme() {
  const background = page => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await open({ colorScheme: "dark" }, async page => {
    check((await background(page)) === "rgb(13, 16, 21)", "a system in dark gets a dark page", await background(page));
    await explain(page, "key-1");
    if (pictures) await page.screenshot({ path: `${pictures}/dark.png`, fullPage: true });
    await accessible(page, "the dark page");
    await page.click("#theme");
    check((await background(page)) === "rgb(245, 246, 248)", "the button chooses the light theme", await background(page));
    await page.reload();
    check((await background(page)) === "rgb(245, 246, 248)", "the choice outlasts a reload", await background(page));
  });
}

async function phone() {
  await open({ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true }, async page => {
    await explain(page, "key-1");
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    check(width <= 360, "nothing is wider than a phone", width);
    if (pictures) await page.screenshot({ path: `${pictures}/phone.png`, fullPage: true });
    await accessible(page, "the page on a phone");
  });
}

async function keyboardOnly() {
  await open({}, async page => {
    const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.className.baseVal || document.activeElement.className || document.activeElement.tagName);
    const order = [];
    for (let i = 0; i < 25; i++) {
      await page.keyboard.press("Tab");
      const shown = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle !== "none" || document.activeElement.className === "skip-link");
      order.push(await focused());
      check(shown, "the focus is visible", order.at(-1));
      if (order.at(-1) === "explain-key") break;
    }
    check(order[0] === "skip-link" && order.indexOf("theme") < order.indexOf("scope") && order.at(-1) === "explain-key", "the focus moves from the head to the form", order.join(" "));
    await page.keyboard.type("key-1");
    await page.keyboard.press("Enter");
    await page.waitForSelector(".path");
    await page.focus(".chart svg[role=img]");
    const label = () => page.locator(".chart-head .note").nth(1).innerText();
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.press("ArrowLeft");
    check((await label()).includes("ago"), "arrow keys move through the chart", await label());
    await page.focus(".chart summary");
    await page.keyboard.press("Enter");
    await page.waitForSelector(".figures tbody tr");
    check((await page.locator(".figures").first().locator("tbody tr").count()) > 2, "the chart has a table");
    await accessible(page, "the table of a chart");
  });
}

async function killedMember() {
  await open({}, async page => {
    await page.waitForFunction(() => /left the ring|not responding/.test(document.querySelector("#events").innerText), null, { timeout: 60000 });
    const row = page.locator("#members tbody tr", { hasText: "sidecar-2" });
    await page.waitForFunction(() => /unreachable|left the ring/.test(document.querySelector("#members").innerText), null, { timeout: 60000 });
    check(/unreachable|left the ring/.test(await row.innerText()), "the killed member is shown", await row.innerText());
    await page.waitForSelector(".mark.bad", { state: "attached", timeout: 60000 }); // with the next interval
    await accessible(page, "the page with a killed member");
  });
}

const phases = { whole: [historyAtOpening, path, hostileText, darkTheme, phone, keyboardOnly], killed: [killedMember] };
try {
  for (const run of phases[phase]) {
    try {
      await run();
    } catch (error) {
      check(false, run.name, error.message);
    }
  }
} finally {
  await browser.close();
}
console.log(`${checks} checks, ${failures} failed`);
process.exit(failures ? 1 : 0);
