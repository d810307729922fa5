/**
 * Tests the dashboard and a report in headless Chromium: what they show, live and after a resume,
 * the controls, the keyboard, narrow screens, that nothing is requested from elsewhere, and a
 * million lines of metrics. Prints a line per claim and ends with `N passed, N failed`.
 *
 * Usage: node scripts/checks/dashboard.js [--lines 1000000] [--images FOLDER] [--only pages|long]
 * With --images, saves the pictures of the docs as well. Times are printed, and not asserted.
 */
const { execFileSync, spawn } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { createInterface } = require('node:readline')
const { parseArgs } = require('node:util')
const { chromium } = require('playwright-core')
const { chromium: chromiumPath } = require('./chromium')
const { writeLines, metricsLine } = require('./dashboard-runs')

const { values: flags } = parseArgs({
  options: {
    lines: { type: 'string', default: '1000000' },
    images: { type: 'string' },
    only: { type: 'string' },
  },
})
const root = path.join(__dirname, '..', '..')
const cli = path.join(root, 'dist', 'cli', 'index.js')
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'kindling-dashboard-'))
const runs = path.join(folder, 'runs')
const children = []
const counts = { passed: 0, failed: 0 }
const CHROMIUM_FLAGS =
  '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run ' +
  '--disable-background-networking --disable-component-update --disable-sync'

function claim(what, isTrue, detail = '') {
  counts[isTrue ? 'passed' : 'failed']++
  process.stdout.write(
    `${isTrue ? 'ok' : 'not ok'} ${what}${detail === '' ? '' : ` (${detail})`}\n`,
  )
}

const kindling = (...args) =>
  execFileSync(process.execPath, [cli, ...args], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'ignore'],
  })

/** Starts a dashboard; returns its URL and process. */
async function dashboard(place) {
  const child = spawn(process.execPath, [cli, 'dashboard', place, '--no-open', '--json'])
  children.push(child)
  const line = await new Promise((resolve) => createInterface(child.stdout).once('line', resolve))
  return { url: JSON.parse(line).url, pid: child.pid }
}

/** Trains two runs to their ends and stops a third. */
function trainRuns() {
  fs.copyFileSync(path.join(root, 'assets', 'moby-dick.txt'), path.join(folder, 'moby-dick.txt'))
  const sizes = '--vocab-size 1000 --d-model 64 --num-heads 4 --d-ff 172 --num-layers 2'
  const lengths = '--max-seq-length 64 --seq-length 64 --batch-size 12 --max-steps 300 --threads 1'
  const intervals = '--log-interval 5 --eval-interval 50 --eval-tokens 4096 --sample-interval 100'
  const common = `${sizes} ${lengths} ${intervals} --peak-tflops 0.15`.split(' ')
  const train = (name, ...more) =>
    kindling('train', '--corpus', 'moby-dick.txt', ...common, '--run', `runs/${name}`, ...more)
  train('lr-1e-3', '--lr', '1e-3', '--lr-min', '1e-4')
  train('lr-3e-3', '--lr', '3e-3', '--lr-min', '3e-4')
  train('lr-3e-4', '--lr', '3e-4', '--lr-min', '3e-5', '--stop-at-step', '220')
}

const steps = (page) => page.locator('dl.tiles dd').first().innerText()
const firstChart = (page) =>
  page.waitForFunction(() => performance.getEntriesByName('first-chart')[0]?.startTime, null, {
    timeout: 60_000,
  })

async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
  const page = await context.newPage()
  page.problems = []
  page.requested = new Set()
  page.on('console', (message) => {
    if (message.type() === 'error') page.problems.push(message.text())
  })
  page.on('pageerror', (error) => page.problems.push(error.message))
  page.on('request', (request) => page.requested.add(new URL(request.url()).origin))
  await page.goto(url)
  return page
}

async function save(page, name) {
  if (flags.images === undefined) return
  await page.screenshot({ path: path.join(flags.images, `${name}.png`) })
}

/** Several runs laid over each other: controls, keyboard, narrow screens. */
async function severalRuns(browser) {
  const { url } = await dashboard(runs)
  const page = await open(browser, url, { colorScheme: 'light' })
  await firstChart(page)
  await page.waitForSelector('#samples blockquote')
  claim('all runs are listed with their states', (await page.locator('#runs li').count()) === 3)
  claim('interrupted runs are marked', (await page.locator('#runs .interrupted').count()) === 1)
  const titles = await page.locator('.chart:not([hidden]) h3').allInnerTexts()
  const wanted = [
    'Loss',
    'Validation loss',
    'Learning rate',
    'Gradient norm',
    'Speed',
    'MFU',
    'Memory',
  ]
  claim(
    'every metric has its chart',
    wanted.every((name) => titles.some((t) => t.startsWith(name))),
  )
  await page.locator('#smoothing').fill('0.5')
  await page.waitForTimeout(800)
  await page.mouse.move(0, 0)
  await page.evaluate(() => document.activeElement.blur())
  await save(page, 'dashboard-light')
  await page.emulateMedia({ colorScheme: 'dark' })
  await page.waitForTimeout(500)
  const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor)
  claim('the page follows a dark system', dark === 'rgb(21, 20, 18)', dark)
  await save(page, 'dashboard-dark')
  await page.locator('#theme').click()
  const light = await page.evaluate(() => getComputedStyle(document.body).backgroundColor)
  claim('the switch overrides the system', light === 'rgb(247, 246, 243)', light)
  await controls(page)
  claim(
    'no error is logged, by the policy either',
    page.problems.length === 0,
    page.problems.join(),
  )
  claim('nothing is requested elsewhere', [...page.requested].join() === new URL(url).origin)
  await page.context().close()

  const phone = await open(browser, url, {
    viewport: { width: 400, height: 860 },
    colorScheme: 'light',
  })
  await firstChart(phone)
  await phone.waitForTimeout(500)
  const width = await phone.evaluate(() => document.documentElement.scrollWidth)
  claim('the page fits 400 pixels', width === 400, `${width} px`)
  await save(phone, 'dashboard-400')
  await phone.context().close()
}

async function controls(page) {
  const plot = page.locator('.plot').first()
  const label = () => plot.getAttribute('aria-label')
  claim('a chart says what it shows', /^Loss by step .*lr-1e-3.* ends at \d/.test(await label()))
  const before = await label()
  const box = await plot.boundingBox()
  await page.mouse.move(box.x + box.width * 0.4, box.y + 60)
  await page.mouse.down()
  await page.mouse.move(box.x + box.width * 0.7, box.y + 80, { steps: 4 })
  await page.mouse.up()
  await page.waitForTimeout(500)
  claim('dragging zooms', (await label()) !== before, await label())
  await page.locator('#reset').click()
  await page.waitForTimeout(500)
  claim('reset zooms out', (await label()).split('.')[0] === before.split('.')[0])
  await plot.focus()
  await page.keyboard.press('ArrowRight')
  const said = await page.locator('#readout').innerText()
  claim('arrows read out the values', /^step \d.*lr-1e-3, Loss, smoothed: \d/.test(said), said)
  await page.keyboard.press('+')
  await page.waitForTimeout(400)
  claim('plus zooms', (await label()).split('.')[0] !== before.split('.')[0])
  await page.keyboard.press('0')
  await page.locator('label:has(input[value=tokens])').click()
  await page.waitForTimeout(500)
  claim('the x axis may be tokens', (await label()).startsWith('Loss by tokens'))
  await page.locator('.behind summary').first().click()
  await page.waitForSelector('.behind td')
  claim('a table lies behind a chart', (await page.locator('.behind td').count()) > 20)
  const names = await page.evaluate(() =>
    [...document.querySelectorAll('button, input, [tabindex="0"]')]
      .filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.length))
      .map((e) => e.outerHTML),
  )
  claim('every control has a name', names.length === 0, names.join())
}

/** A run that grows and is cut back by a resume. It lacks a config.json, so it counts as broken. */
async function live(browser) {
  const run = path.join(folder, 'live', 'run')
  fs.mkdirSync(run, { recursive: true })
  const file = path.join(run, 'metrics.jsonl')
  writeLines(file, 100)
  const { url } = await dashboard(run)
  const page = await open(browser, url)
  await firstChart(page)
  claim(
    'a run without config.json is shown as broken',
    (await page.locator('.state.broken').count()) > 0,
  )
  const shows = async (step) =>
    page.waitForFunction(
      (wanted) => document.querySelector('dl.tiles dd')?.textContent === wanted,
      step,
      { timeout: 10_000 },
    )
  const isShown = async (what, step) =>
    claim(
      what,
      await shows(step).then(
        () => true,
        () => false,
      ),
      await steps(page),
    )
  const evil = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
  fs.appendFileSync(file, metricsLine(101, 1000, { sample: evil }))
  await isShown('new lines appear by themselves', '1\u2009010')
  const text = await page.locator('#samples blockquote').first().innerText()
  claim('a sample is text, whatever it holds', text === evil, text)
  fs.writeFileSync(
    `${file}.new`,
    Array.from({ length: 40 }, (_, i) => metricsLine(i + 1, 1000)).join(''),
  )
  fs.renameSync(`${file}.new`, file)
  await isShown('a resume that cuts the metrics back is followed', '400')
  claim('no error is logged', page.problems.length === 0, page.problems.join())
  await page.context().close()
}

const memoryMib = (pid) =>
  Number(/VmHWM:\s*(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024

/** Long files: times of the first chart and of zooming, memory of the server. */
async function longRuns(browser, what, place) {
  const { url, pid } = await dashboard(place)
  const page = await open(browser, url)
  const first = await (await firstChart(page)).jsonValue()
  await page.waitForFunction(() => document.querySelector('#charts > .empty')?.hidden)
  await page.waitForTimeout(6000)
  const plot = page.locator('.u-over').first()
  for (let i = 0; i < 5; i++) {
    const box = await plot.boundingBox()
    await page.mouse.move(box.x + box.width * 0.2, box.y + 60)
    await page.mouse.down()
    await page.mouse.move(box.x + box.width * 0.8, box.y + 80, { steps: 3 })
    await page.mouse.up()
    await page.waitForTimeout(400)
  }
  const zooms = await page.evaluate(() =>
    performance.getEntriesByName('zoom').map((entry) => Math.round(entry.duration)),
  )
  const memory = memoryMib(pid).toFixed(0)
  const figures = `first chart ${first.toFixed(0)} ms, zooms ${zooms.join(' ')} ms, server ${memory} MiB`
  claim(`${what} are drawn and zoomed`, zooms.length === 5 && page.problems.length === 0, figures)
  claim(`the server needs less than 200 MiB for ${what}`, memory < 200, `${memory} MiB`)
  await page.context().close()
}

async function report(browser) {
  kindling(
    'report',
    ...['lr-1e-3', 'lr-3e-3', 'lr-3e-4'].map((name) => `runs/${name}`),
    '--out',
    'report.html',
  )
  const page = await open(browser, `file://${path.join(folder, 'report.html')}`, {
    colorScheme: 'light',
  })
  claim('a report draws its charts', (await page.locator('svg .line').count()) >= 15)
  claim(
    'a report requests nothing',
    [...page.requested].join() === 'null' && page.problems.length === 0,
  )
  await save(page, 'report')
  await page.setViewportSize({ width: 400, height: 800 })
  const width = await page.evaluate(() => document.documentElement.scrollWidth)
  claim('a report fits 400 pixels', width === 400, `${width} px`)
  await page.context().close()
}

/** One file of many lines, then as many in eight runs. */
async function longFiles(browser, lines) {
  const long = path.join(folder, 'long', 'run')
  fs.mkdirSync(long, { recursive: true })
  writeLines(path.join(long, 'metrics.jsonl'), lines)
  const eighth = Math.round(lines / 8)
  for (let i = 1; i <= 8; i++) {
    const run = path.join(folder, 'eight', `run-${i}`)
    fs.mkdirSync(run, { recursive: true })
    writeLines(path.join(run, 'metrics.jsonl'), eighth, i)
  }
  await longRuns(browser, `${lines} lines`, long)
  await longRuns(browser, `eight runs of ${eighth} lines`, path.join(folder, 'eight'))
}

async function main() {
  const browser = await chromium.launch({
    executablePath: chromiumPath(),
    args: CHROMIUM_FLAGS.split(' '),
  })
  try {
    if (flags.only !== 'long') {
      trainRuns()
      await severalRuns(browser)
      await report(browser)
      await live(browser)
    }
    if (flags.only !== 'pages') await longFiles(browser, Number(flags.lines))
  } finally {
    await browser.close()
    for (const child of children) child.kill('SIGTERM')
    fs.rmSync(folder, { recursive: true, force: true })
  }
  process.stdout.write(`${counts.passed} passed, ${counts.failed} failed\n`)
  process.exitCode = counts.failed > 0 ? 1 : 0
}

void main()
