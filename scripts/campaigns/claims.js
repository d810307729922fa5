/**
 * Helpers of the campaigns: claims that are counted, a temporary folder, the command line, memory
 * use.
 */
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

const root = path.join(__dirname, '..', '..')
const text = path.join(root, 'assets', 'moby-dick.txt')
const counts = { passed: 0, failed: 0, skipped: 0 }

/** Reports a claim, with the measurement behind it. */
function claim(what, holds, measured) {
  counts[holds ? 'passed' : 'failed']++
  process.stdout.write(
    `${holds ? 'ok' : 'NOT OK'} ${what}${measured === undefined ? '' : ` (${measured})`}\n`,
  )
}

/** Reports a claim that cannot be tested on this machine. */
function skip(what, reason) {
  counts.skipped++
  process.stdout.write(`skipped ${what} (${reason})\n`)
}

/**
 * Runs a campaign in a temporary folder and prints the closing line that scripts/stages.js reads.
 */
async function campaign(body) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'kindling-campaign-'))
  try {
    await body(folder)
  } catch (error) {
    claim('the campaign ran to its end', false, error.stack)
  } finally {
    fs.rmSync(folder, { recursive: true, force: true })
  }
  const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : ''
  process.stdout.write(`${counts.passed} passed, ${counts.failed} failed${skipped}\n`)
  process.exitCode = counts.failed > 0 ? 1 : 0
}

/** Runs `kindling ...args` and returns { status, stdout, stderr }. */
function kindling(...args) {
  const cli = path.join(root, 'dist', 'cli', 'index.js')
  return spawnSync(process.execPath, [cli, ...args], { encoding: 'utf8', maxBuffer: 2 ** 28 })
}

/** Returns the last JSON line of `kindling ...args --json`. Throws if the command fails. */
function kindlingJson(...args) {
  const { status, stdout, stderr } = kindling(...args, '--json')
  if (status !== 0)
    throw new Error(
      `kindling ${args.join(' ')} failed with exit code ${status}\n${stdout}${stderr}`,
    )
  return JSON.parse(stdout.trimEnd().split('\n').at(-1))
}

/** Returns a field of /proc/self/status, such as VmRSS, in MiB. */
function memoryMib(field) {
  const found = new RegExp(`^${field}:\\s*(\\d+) kB`, 'm').exec(
    fs.readFileSync('/proc/self/status', 'utf8'),
  )
  return Number(found[1]) / 1024
}

/** Returns the value of the argument `--name`, or `otherwise`. */
function option(name, otherwise) {
  const at = process.argv.indexOf(`--${name}`)
  return at < 0 ? otherwise : process.argv[at + 1]
}

module.exports = { root, text, claim, skip, campaign, kindling, kindlingJson, memoryMib, option }
