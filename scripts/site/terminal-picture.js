/**
 * Records a command in a terminal of 92 columns and saves a picture of the final screen.
 *
 * Usage: node scripts/site/terminal-picture.js [--out docs/images/terminal.png] [-- COMMAND...]
 * The command is `npx kindling quickstart` unless given. Needs `script` of util-linux and Chromium.
 */
const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { parseArgs } = require('node:util')
const { chromium } = require('playwright-core')
const { chromium: chromiumPath } = require('../checks/chromium')
const { Screen } = require('./terminal-screen')

const COLUMNS = 92
const root = path.join(__dirname, '..', '..')
const { values: flags, positionals } = parseArgs({
  options: { out: { type: 'string', default: path.join(root, 'docs/images/terminal.png') } },
  allowPositionals: true,
})

/** Runs `command` in a new terminal and an empty folder; returns everything that it printed. */
function record(command) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'kindling-picture-'))
  const bin = path.join(folder, 'bin')
  const work = path.join(folder, 'work')
  fs.mkdirSync(bin)
  fs.mkdirSync(work)
  const cli = path.join(root, 'dist', 'cli', 'index.js')
  // Starts at once, without npx's own output.
  fs.writeFileSync(path.join(bin, 'npx'), `#!/bin/sh\nshift\nexec node "${cli}" "$@"\n`, {
    mode: 0o755,
  })
  const log = path.join(folder, 'log')
  const inside = `stty cols ${COLUMNS} rows 60; cd ${work}; ${command}`
  try {
    execFileSync('script', ['-qfec', inside, log], {
      env: { ...process.env, PATH: `${bin}:${process.env.PATH}`, TERM: 'xterm-256color' },
      stdio: 'ignore',
    })
    const text = fs.readFileSync(log, 'utf8')
    // `script` frames the session with lines of its own.
    return text.replace(/^Script started.*\n/, '').replace(/\n?Script done[^]*$/, '')
  } finally {
    fs.rmSync(folder, { recursive: true, force: true })
  }
}

function page(command, screen) {
  return `<!doctype html><meta charset="utf-8"><style>
    body { margin: 0; padding: 18px; background: #21252b; width: max-content }
    pre { margin: 0; color: #d7dae0; font: 15px/1.4 'DejaVu Sans Mono', monospace }
    .prompt { color: #98c379 }
  </style><pre><span class="prompt">$</span> ${command}\n${screen.html()}</pre>`
}

async function main() {
  const command = positionals.length > 0 ? positionals.join(' ') : 'npx kindling quickstart'
  const screen = new Screen(COLUMNS)
  screen.write(record(command))
  const browser = await chromium.launch({ executablePath: chromiumPath(), args: ['--no-sandbox'] })
  const tab = await browser.newPage({ deviceScaleFactor: 1.5 })
  await tab.setContent(page(command, screen))
  await tab.locator('body').screenshot({ path: flags.out })
  await browser.close()
  process.stdout.write(`${flags.out}\n`)
}

void main()
