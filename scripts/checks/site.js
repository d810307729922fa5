/**
 * Looks at the built site in headless Chromium: every page at the widths of a desktop and a phone,
 * without errors or requests to other servers; the search; light and dark. Prints a line per claim
 * and ends with `N passed, N failed`.
 *
 * Usage: node scripts/checks/site.js [--images FOLDER]; `npm run docs:build` comes first.
 */
const fs = require('node:fs')
const path = require('node:path')
const { parseArgs } = require('node:util')
const { chromium } = require('playwright-core')
const { serve } = require('../site/serve')
const { chromium: chromiumPath } = require('./chromium')

const { values: flags } = parseArgs({ options: { images: { type: 'string' } } })
const html = path.join(__dirname, '..', '..', 'target', 'site', 'html')
const counts = { passed: 0, failed: 0 }
const DESKTOP = { width: 1280, height: 900 }
const PHONE = { width: 400, height: 860 }
/** Pages whose pictures are saved. */
const PICTURED = ['index.html', 'start.html', 'errors.html', 'cli.html', 'guides/resume.html']

function claim(what, isTrue, detail = '') {
  counts[isTrue ? 'passed' : 'failed']++
  const more = detail === '' ? '' : ` (${detail})`
  process.stdout.write(`${isTrue ? 'ok' : 'not ok'} ${what}${more}\n`)
}

/** Opens a context whose pages record errors and the origins that they request. */
async function context(browser, options) {
  const opened = await browser.newContext(options)
  // A busy machine may stand still for a while.
  opened.setDefaultTimeout(300_000)
  const seen = { problems: [], origins: new Set() }
  opened.on('console', (message) => {
    if (message.type() === 'error') seen.problems.push(message.text())
  })
  opened.on('weberror', (error) => seen.problems.push(error.error().message))
  opened.on('request', (request) => seen.origins.add(new URL(request.url()).origin))
  return { opened, seen }
}

async function everyPage(browser, url, name, viewport, colorScheme) {
  const { opened, seen } = await context(browser, { viewport, colorScheme })
  const page = await opened.newPage()
  const wide = []
  const pages = fs
    .readdirSync(html, { recursive: true })
    .filter((file) => file.endsWith('.html') && file !== '404.html')
  for (const file of pages) {
    await page.goto(new URL(file, url).href)
    const width = await page.evaluate(() => document.documentElement.scrollWidth)
    if (width > viewport.width) wide.push(`${file}: ${width} px`)
    if (flags.images !== undefined && PICTURED.includes(file)) {
      const picture = `${file.replace(/\W/g, '-')}-${name}.png`
      await page.screenshot({ path: path.join(flags.images, picture) })
    }
  }
  claim(`no page is wider than ${viewport.width} pixels`, wide.length === 0, wide.join(', '))
  claim(`no page logs an error (${name})`, seen.problems.length === 0, seen.problems.join(', '))
  const elsewhere = [...seen.origins].filter((origin) => origin !== new URL(url).origin)
  claim(`nothing is requested elsewhere (${name})`, elsewhere.length === 0, elsewhere.join(', '))
  await opened.close()
}

async function search(browser, url) {
  const { opened } = await context(browser, { viewport: DESKTOP })
  const page = await opened.newPage()
  await page.goto(url)
  await page.keyboard.press('Control+k')
  const input = page.locator('#localsearch-input')
  await input.fill('ERR_DISK_FULL')
  const first = page.locator('#localsearch-list a').first()
  await first.waitFor()
  const title = await first.innerText()
  claim('the search finds an error code', /ERR_DISK_FULL|Errors/.test(title), title)
  await opened.close()
}

async function dark(browser, url) {
  const colours = []
  for (const colorScheme of ['light', 'dark']) {
    const { opened } = await context(browser, { viewport: DESKTOP, colorScheme })
    const page = await opened.newPage()
    await page.goto(url)
    colours.push(await page.evaluate(() => getComputedStyle(document.body).backgroundColor))
    await opened.close()
  }
  claim('the site follows a dark system', colours[0] !== colours[1], colours.join(', '))
}

async function main() {
  const { url, stop } = await serve()
  const browser = await chromium.launch({
    executablePath: chromiumPath(),
    args: ['--no-sandbox', '--disable-gpu'],
  })
  try {
    await everyPage(browser, url, 'desktop', DESKTOP, 'light')
    await everyPage(browser, url, 'phone', PHONE, 'dark')
    await search(browser, url)
    await dark(browser, url)
  } finally {
    await browser.close()
    stop()
  }
  process.stdout.write(`${counts.passed} passed, ${counts.failed} failed\n`)
  process.exitCode = counts.failed > 0 ? 1 : 0
}

void main()
