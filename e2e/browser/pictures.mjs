// Takes the pictures of the console that the documentation shows. Usage: pictures.mjs PACKAGES URL
import { createRequire } from "node:module";

const [packages, url] = process.argv.slice(2);
const { chromium } = createRequire(packages + "/")("playwright-core");
const folder = new URL("../../sidecar/admin/", import.meta.url).pathname;
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });

async function picture(name, colorScheme, use) {
  const page = await browser.newPage({ viewport: { width: 1200, height: 956 }, colorScheme });
  await page.goto(url);
  await page.waitForSelector(".tile .figure");
  await use(page, `${folder}${name}.png`);
  await page.close();
}

await picture("console", "light", (page, path) => page.screenshot({ path }));
await picture("path", "dark", async (page, path) => {
  for (let i = 1; i < 50; i++) { // a key whose owner is another member
    await page.fill("#explain-key", `CNF-${String(i).padStart(3, "0")}`);
    await page.press("#explain-key", "Enter");
    await page.waitForFunction(key => document.querySelector(".verdict .key")?.textContent === key, await page.inputValue("#explain-key"));
    if (await page.locator(".path li").count() === 3) break;
  }
  await page.locator(".explain-card").screenshot({ path });
});
await browser.close();
