/**
 * Finds Chromium, or as root installs Debian's with apt, and prints its path; fails if there is
 * none. KINDLING_CHROMIUM names another one.
 */
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')

const NAMES = [process.env.KINDLING_CHROMIUM, '/usr/bin/chromium', '/usr/bin/google-chrome']

function find() {
  return NAMES.find((name) => name !== undefined && fs.existsSync(name))
}

function install() {
  const isRoot = process.getuid?.() === 0
  if (!isRoot || spawnSync('apt-get', ['--version']).status !== 0) return
  for (const args of [['update'], ['install', '-y', '--no-install-recommends', 'chromium']]) {
    spawnSync('apt-get', ['-qq', ...args], { stdio: ['ignore', 'ignore', 'inherit'] })
  }
}

/** Returns the path of Chromium, undefined if there is none. */
function chromium() {
  if (find() === undefined) install()
  return find()
}

module.exports = { chromium }
if (require.main === module) {
  const path = chromium()
  process.stdout.write(`${path ?? 'no Chromium'}\n`)
  process.exitCode = path === undefined ? 1 : 0
}
