/**
 * Runs the stages of a test run one after the other, shows their output, counts what they report and prints the
 * closing line `N passed, N failed` (and `, N skipped` when any were).
 */
const { spawn } = require('node:child_process')
const { root } = require('./setup')

// Counts are read from plain text.
const environment = { ...process.env, FORCE_COLOR: '0', CARGO_TERM_COLOR: 'never' }

/** How cargo test and ava report; a stage that ends with a closing line of ours is counted by that alone. */
const PATTERNS = {
  passed: [/^test result: .*?(\d+) passed/gm, /^ +(\d+) tests? passed/gm],
  failed: [
    /^test result: .*?(\d+) failed/gm,
    /^ +(\d+) (?:tests?|hooks?) failed/gm,
    /^ +(\d+) (?:uncaught exceptions?|unhandled rejections?)/gm,
  ],
  skipped: [/^test result: .*?(\d+) ignored/gm, /^ +(\d+) tests? (?:skipped|todo)/gm],
}
const CLOSING = /^(?<passed>\d+) passed, (?<failed>\d+) failed(?:, (?<skipped>\d+) skipped)?$/

function reported(output) {
  const closing = CLOSING.exec(output.trimEnd().split('\n').at(-1))
  const sum = (patterns) =>
    patterns
      .flatMap((pattern) => [...output.matchAll(pattern)])
      .reduce((n, found) => n + Number(found[1]), 0)
  return Object.fromEntries(
    Object.entries(PATTERNS).map(([kind, patterns]) => [
      kind,
      closing ? Number(closing.groups[kind] ?? 0) : sum(patterns),
    ]),
  )
}

/** The counts of a stage; a check that reports none is one test, a failure without one is one failed test. */
function count(output, exitCode) {
  const counts = reported(output)
  if (exitCode !== 0 && counts.failed === 0) counts.failed = 1
  if (counts.passed + counts.failed + counts.skipped === 0) counts.passed = 1
  return counts
}

/** Runs one command; resolves to its output and exit code. `quiet` shows the output of a failure only. */
function execute([command, ...args], quiet) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
      shell: process.platform === 'win32',
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8')
      stream.on('data', (text) => {
        output += text
        if (!quiet) process.stdout.write(text)
      })
    }
    child.on('error', (error) => resolve({ output: `${output}${error.message}\n`, exitCode: 1 }))
    child.on('close', (code) => resolve({ output, exitCode: code ?? 1 }))
  })
}

/**
 * Runs `stages`, each { name, command, quiet, needs }, all of them even if one fails; sets the exit code and prints the
 * sum. A stage whose tool (`needs`: [command that tells, how to get it]) is not installed is skipped and says so.
 */
async function runStages(stages) {
  const total = { passed: 0, failed: 0, skipped: 0 }
  const failures = []
  for (const { name, command, quiet, needs } of stages) {
    process.stdout.write(`== ${name}\n`)
    if (needs && (await execute(needs[0], true)).exitCode !== 0) {
      total.skipped++
      process.stdout.write(`-- ${name}: skipped, ${needs[1]}\n`)
      continue
    }
    const started = Date.now()
    const { output, exitCode } = await execute(command, quiet)
    const counts = count(output, exitCode)
    for (const kind of Object.keys(total)) total[kind] += counts[kind]
    if (counts.failed > 0) {
      failures.push(name)
      if (quiet) process.stdout.write(output)
    }
    const seconds = ((Date.now() - started) / 1000).toFixed(1)
    process.stdout.write(
      `-- ${name}: ${counts.failed > 0 ? 'FAILED' : 'ok'} (${summary(counts)}; ${seconds} s)\n`,
    )
  }
  if (failures.length > 0) process.stdout.write(`failed: ${failures.join(', ')}\n`)
  process.stdout.write(`${summary(total)}\n`)
  process.exitCode = total.failed > 0 ? 1 : 0
}

function summary({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`
}

module.exports = { count, runStages }
