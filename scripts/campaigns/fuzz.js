/**
 * Fuzzes every reader of untrusted bytes (fuzz/targets/, libFuzzer with AddressSanitizer). None may
 * crash, panic, or take more than 512 MiB or 10 seconds for one input (`--timeout` raises the
 * latter for machines that may stall). Each target runs on one thread, `--jobs` of them at once.
 * Inputs that reached new code stay in target/fuzzing/corpus; failing ones are written to
 * target/fuzzing/artifacts.
 *
 * Usage: node scripts/campaigns/fuzz.js [--seconds 1200] [--runs 10000000] [--only store]
 *                                       [--timeout 10] [--jobs CORES]
 *        node scripts/campaigns/fuzz.js --can-run   (exits with 1 if it cannot)
 */
const { root, claim, campaign, option } = require('./claims')
const { spawn, spawnSync } = require('node:child_process')
const { once } = require('node:events')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

const work = path.join(root, 'target', 'fuzzing')
const tools = path.join(work, 'tools')
const TRIPLE = 'x86_64-unknown-linux-gnu'
const VERSION = '0.13.2'
// With a single codegen unit, cargo-fuzz's default, the engine alone compiles for minutes.
const BUILD = ['+nightly', 'fuzz', 'build', '--codegen-units', '16']
const LIMITS = ['-rss_limit_mb=512', '-malloc_limit_mb=256']
/**
 * Longest inputs, in bytes, of targets that short ones cover. Others have 4,096, or the longest
 * seed.
 */
const MAX_LENGTHS = { config: 1024, sampling: 1024, text: 1024, token_file: 1024 }

/** Fixtures of other tests that serve as seeds too. */
const models = path.join(root, 'crates', 'kindling-core', 'tests', 'fixtures', 'exchange', 'models')
const FIXTURES = {
  model_file: ['all-types.gguf', 'course.pt'].map((name) => path.join(models, name)),
}

const environment = {
  ...process.env,
  CARGO_TARGET_DIR: process.env.KINDLING_FUZZ_TARGET ?? path.join(work, 'build'),
  PATH: `${path.join(tools, 'bin')}${path.delimiter}${process.env.PATH}`,
  // Freed memory is not kept for long, so that the limit applies to what the program uses.
  ASAN_OPTIONS: 'quarantine_size_mb=16:allocator_release_to_os_interval_ms=100:detect_leaks=1',
}

function cargo(args, options = {}) {
  return spawnSync('cargo', args, { cwd: root, env: environment, encoding: 'utf8', ...options })
}

/** Returns whether there is a nightly toolchain, a C++ compiler, and cargo-fuzz, installed if needed. */
function canRun() {
  if (process.platform !== 'linux' || process.arch !== 'x64') return false
  if (cargo(['+nightly', '--version']).status !== 0) return false
  if (spawnSync('c++', ['--version']).status !== 0) return false
  if (cargo(['fuzz', '--version']).status === 0) return true
  const install = ['install', 'cargo-fuzz', '--locked', '--version', VERSION, '--root', tools]
  return cargo(install).status === 0
}

function targets() {
  const { status, stdout, stderr } = cargo(['+nightly', 'fuzz', 'list'])
  if (status !== 0) throw new Error(`cargo fuzz list: ${stderr}`)
  const only = option('only')
  return stdout
    .trim()
    .split('\n')
    .filter((name) => only === undefined || name === only)
}

/** Runs `program` to its end; returns its id, status, signal and what it wrote to stderr. */
async function run(program, args) {
  const child = spawn(program, args, { env: environment, stdio: ['ignore', 'ignore', 'pipe'] })
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (written) => {
    stderr += written
  })
  const [status, signal] = await once(child, 'close')
  return { pid: child.pid, status, signal, stderr }
}

/** Runs one target; returns the number of inputs, and what went wrong. */
async function fuzz(name, seconds, runs) {
  const corpus = path.join(work, 'corpus', name)
  const artifacts = path.join(work, 'artifacts', name)
  for (const folder of [corpus, artifacts]) fs.mkdirSync(folder, { recursive: true })
  for (const file of FIXTURES[name] ?? [])
    fs.copyFileSync(file, path.join(corpus, path.basename(file)))
  const program = path.join(environment.CARGO_TARGET_DIR, TRIPLE, 'release', name)
  const seeds = path.join(root, 'fuzz', 'seeds', name)
  const dictionary = path.join(root, 'fuzz', 'words.dict')
  const started = performance.now()
  const { status, signal, stderr, pid } = await run(program, [
    ...LIMITS,
    `-timeout=${option('timeout', '10')}`,
    `-max_len=${MAX_LENGTHS[name] ?? 0}`,
    `-max_total_time=${seconds}`,
    `-runs=${runs}`,
    `-dict=${dictionary}`,
    `-artifact_prefix=${artifacts}/`,
    '-print_final_stats=1',
    '-verbosity=1',
    corpus,
    seeds,
  ])
  fs.rmSync(`/dev/shm/kindling-fuzz-${pid}`, { recursive: true, force: true })
  const inputs = Number(/stat::number_of_executed_units:\s*(\d+)/.exec(stderr)?.[1] ?? 0)
  const took = Math.round((performance.now() - started) / 1000)
  const coverage = [...stderr.matchAll(/cov: (\d+)/g)].at(-1)?.[1]
  const problem = status === 0 ? '' : `${signal ?? status}: ${stderr.slice(-3000)}`
  return { inputs, took, coverage, problem }
}

/** Runs targets from the list `waiting`, one after another, until it is empty. */
async function fuzzFrom(waiting) {
  for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
    const seconds = Number(option('seconds', '1200'))
    const found = await fuzz(name, seconds, option('runs', '10000000'))
    const measured =
      found.problem || `${found.inputs} inputs in ${found.took} s, ${found.coverage} edges`
    claim(`fuzzing ${name} finds nothing`, found.problem === '' && found.inputs > 0, measured)
  }
}

if (process.argv.includes('--can-run')) {
  process.exitCode = canRun() ? 0 : 1
} else {
  campaign(async () => {
    if (!canRun()) throw new Error('there is no nightly Rust, C++ compiler or cargo-fuzz')
    const built = cargo(BUILD, { stdio: ['ignore', 'inherit', 'inherit'] })
    if (built.status !== 0) throw new Error('the fuzz targets cannot be built')
    const waiting = targets()
    const jobs = Number(option('jobs', os.availableParallelism()))
    await Promise.all(Array.from({ length: jobs }, () => fuzzFrom(waiting)))
  })
}
