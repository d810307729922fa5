/**
 * Runs the stages of a test run one after another, adds up the tests that they report, and ends
 * with a closing line: `N passed, N failed` (and `, N skipped`, if any).
 */
const { spawn } = require('node:child_process')
const { root } = require('./setup')

// The patterns below expect text without colours.
const environment = { ...process.env, FORCE_COLOR: '0', CARGO_TERM_COLOR: 'never' }

const CARGO = {
  passed: /^test result: .*?(\d+) passed/gm,
  failed: /^test result: .*?(\d+) failed/gm,
  skipped: /^test result: .*?(\d+) ignored/gm,
}
const AVA = {
  passed: /^ +(\d+) tests? passed/gm,
  failed: /^ +(\d+) (?:(?:tests?|hooks?) failed|uncaught exceptions?|unhandled rejections?)/gm,
  skipped: /^ +(\d+) tests? (?:skipped|todo)/gm,
}
/** One line per passed test. If any test failed, ava prints no sum of those that passed. */
const AVA_PASSED_LINE = /^ +[✔√] /gmu
const CLOSING = /^(?<passed>\d+) passed, (?<failed>\d+) failed(?:, (?<skipped>\d+) skipped)?$/

/**
 * Returns how many tests a stage passed, failed and skipped.
 *
 * A closing line such as ours counts alone; otherwise every summary of cargo test and ava is added
 * up. A stage without any count is one test, passed or failed by its exit code.
 */
function count(output, exitCode) {
  const counts = closingCounts(output) ?? summedCounts(output)
  if (exitCode !== 0 && counts.failed === 0) counts.failed = 1
  if (counts.passed + counts.failed + counts.skipped === 0) counts.passed = 1
  return counts
}

function closingCounts(output) {
  const closing = CLOSING.exec(output.trimEnd().split('\n').at(-1))
  if (!closing) return null
  const { passed, failed, skipped = 0 } = closing.groups
  return { passed: Number(passed), failed: Number(failed), skipped: Number(skipped) }
}

function summedCounts(output) {
  const sum = (pattern) =>
    [...output.matchAll(pattern)].reduce((total, found) => total + Number(found[1]), 0)
  const ava = { passed: sum(AVA.passed), failed: sum(AVA.failed), skipped: sum(AVA.skipped) }
  if (ava.passed === 0) ava.passed = [...output.matchAll(AVA_PASSED_LINE)].length
  return {
    passed: sum(CARGO.passed) + ava.passed,
    failed: sum(CARGO.failed) + ava.failed,
    skipped: sum(CARGO.skipped) + ava.skipped,
  }
}

/** Lines that name what failed: tests of ava and cargo test, claims of campaigns, stages. */
const FAILED_LINE = /^(?: *[✘×] .*|test .* \.\.\. FAILED|NOT OK .*|-- .*: FAILED.*)$/gmu
const MOST_FAILED_LINES = 20

/** Returns the lines of a stage's output that name what failed, each once. */
function failedLines(output) {
  const lines = [...output.matchAll(FAILED_LINE)].map(([line]) => line.trim())
  return [...new Set(lines)].slice(0, MOST_FAILED_LINES)
}

/**
 * Runs one command and returns its output and exit code.
 *
 * @param isQuiet - keep the output back instead of printing it.
 */
function execute([command, ...args], isQuiet) {
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
        if (!isQuiet) process.stdout.write(text)
      })
    }
    child.on('error', (error) => resolve({ output: `${output}${error.message}\n`, exitCode: 1 }))
    child.on('close', (code) => resolve({ output, exitCode: code ?? 1 }))
  })
}

/**
 * Runs all stages, even after one has failed, prints once more what failed and the closing line,
 * and sets the exit code.
 *
 * A stage is { name, command, quiet, needs }. `quiet` prints the output only if the stage fails.
 * `needs` is [command, hint]: if that command fails, the stage is skipped with the hint.
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
      failures.push(`failed: ${name}`, ...failedLines(output).map((line) => `  ${line}`))
      if (quiet) process.stdout.write(output)
    }
    const seconds = ((Date.now() - started) / 1000).toFixed(1)
    const verdict = counts.failed > 0 ? 'FAILED' : 'ok'
    process.stdout.write(`-- ${name}: ${verdict} (${closingLine(counts)}; ${seconds} s)\n`)
  }
  for (const line of failures) process.stdout.write(`${line}\n`)
  process.stdout.write(`${closingLine(total)}\n`)
  process.exitCode = total.failed > 0 ? 1 : 0
}

function closingLine({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`
}

module.exports = { count, failedLines, runStages }
