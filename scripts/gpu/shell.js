/** Runs the commands of `gpu-check run` with a time limit; keeps their output and never throws. */
const { spawnSync } = require('node:child_process')

/** The emulated CUDA libraries in one, if they are packed. */
const EMULATED = 'libkindling_fake_libcuda.so'

/**
 * Runs a command; returns { ok, skipped, output, seconds }. A missing command counts as skipped.
 */
function sh(context, command, args, { environment = {}, seconds = 120 } = {}) {
  const started = Date.now()
  const limit = Math.max(1, Math.min(seconds, context.secondsLeft()))
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: context.work,
    env: { ...process.env, ...context.environment, ...environment },
    encoding: 'utf8',
    timeout: Math.round(1000 * limit),
    killSignal: 'SIGKILL',
    maxBuffer: 2 ** 27,
  })
  const took = (Date.now() - started) / 1000
  const missing = error?.code === 'ENOENT'
  const late = error?.code === 'ETIMEDOUT'
  const output = `${stdout ?? ''}${stderr ?? ''}${missing ? `${command} is not installed\n` : ''}${
    late ? `stopped after ${limit.toFixed(0)} s\n` : ''
  }`
  return { ok: status === 0, skipped: missing, output, stdout: stdout ?? '', seconds: took }
}

/** Runs the packed CLI with --json. */
function kindling(context, args, options) {
  const done = sh(
    context,
    process.execPath,
    [`${context.root}/dist/cli/index.js`, ...args],
    options,
  )
  return { ...done, lines: jsonLines(done.stdout) }
}

function python(context, args, options) {
  const done = sh(context, context.python, args, options)
  return { ...done, lines: jsonLines(done.stdout) }
}

function jsonLines(text) {
  return text
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .flatMap((line) => {
      try {
        return [JSON.parse(line)]
      } catch {
        return []
      }
    })
}

const lastLines = (text, count) => text.trimEnd().split('\n').slice(-count).join('\n')

module.exports = { EMULATED, kindling, lastLines, python, sh }
