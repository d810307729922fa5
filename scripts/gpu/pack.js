/**
 * Packs everything a bare machine with a GPU needs for `scripts/gpu-check run`: the addon with CUDA
 * and the GPU tests (stripped), Node, the compiled TypeScript with its packages, and the scripts.
 * The compiler is that of scripts/cuda-toolkit.js.
 *
 * Usage: node scripts/gpu/pack.js [FOLDER] [--emulated], after `npm run build`
 *
 * --emulated adds the libraries that emulate a GPU.
 */
const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { cudaEnvironment } = require('../cuda-toolkit')
const { EMULATED } = require('./shell')

const root = path.join(__dirname, '..', '..')
const MOST_BYTES = 64 * 2 ** 20
const TESTS = ['layers', 'attention', 'loss', 'parameters', 'model']
/** Copied unchanged to the same paths. */
const COPIED = [
  'dist',
  'package.json',
  'LICENSE',
  'node_modules/commander',
  'node_modules/zod',
  'scripts/gpu-check',
  'scripts/gpu',
  'scripts/checks/fake-libcuda.js',
  'scripts/peers/torch_train.py',
]
/** The folder whose kernels are copied, for scripts/gpu/kernels.py to compile. */
const OPS = 'crates/kindling-core/src/ops'

/** Builds with the feature `cuda`; returns the paths of the libraries and tests by name. */
function build() {
  const target = process.env.CARGO_TARGET_DIR ?? path.join(root, 'target')
  const options = {
    cwd: root,
    env: { ...cudaEnvironment(), CARGO_TARGET_DIR: target },
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    stdio: ['ignore', 'pipe', 'inherit'],
  }
  const cargo = (...args) =>
    execFileSync(
      'cargo',
      [...args, '--release', '--message-format=json-render-diagnostics'],
      options,
    )
  const messages = [
    cargo('build', '-p', 'kindling-napi', '--features', 'cuda'),
    cargo('test', '--no-run', '-p', 'kindling-kernel-emulator', '--features', 'cuda'),
  ]
  const built = messages.flatMap((text) =>
    text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line)),
  )
  const addon = path.join(target, 'release', 'libkindling_napi.so')
  const tests = TESTS.map((name) => {
    const found = built.find(
      (m) => m.executable && m.target.name === name && m.target.kind.includes('test'),
    )
    if (!found) throw new Error(`cargo made no test ${name}`)
    return [`test-${name}`, found.executable]
  })
  return Object.fromEntries([['addon.node', addon], ...tests])
}

function emulated() {
  execFileSync('cargo', ['build', '--release', '--quiet', '-p', 'kindling-fake-libcuda'], {
    cwd: root,
    env: { ...process.env, CARGO_TARGET_DIR: path.join(root, 'target') },
    stdio: 'inherit',
  })
  return { [EMULATED]: path.join(root, 'target', 'release', EMULATED) }
}

function kernels() {
  return fs
    .readdirSync(path.join(root, OPS), { recursive: true })
    .filter((name) => /\.cuh?$/.test(name))
    .map((name) => path.join(OPS, name))
}

/** Strips a file of debug information and compresses it with xz. */
function compress(file, to, strip) {
  fs.copyFileSync(file, to)
  fs.chmodSync(to, 0o755)
  if (strip) execFileSync('strip', [to])
  execFileSync('xz', ['--force', '-T0', '-6', to])
}

function bytesUnder(folder) {
  const entries = fs.readdirSync(folder, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + fs.statSync(path.join(entry.parentPath, entry.name)).size, 0)
}

function main() {
  const folders = process.argv.slice(2).filter((arg) => !arg.startsWith('--'))
  const out = path.resolve(folders[0] ?? path.join(root, 'target', 'gpu-check'))
  if (
    fs.existsSync(out) &&
    !fs.existsSync(path.join(out, 'packed')) &&
    fs.readdirSync(out).length > 0
  )
    throw new Error(`${out} holds something else`)
  const binaries = { ...build(), ...(process.argv.includes('--emulated') ? emulated() : {}) }
  fs.rmSync(out, { recursive: true, force: true })
  fs.mkdirSync(path.join(out, 'packed'), { recursive: true })
  const isWanted = (entry) => !entry.includes('__pycache__')
  for (const entry of [...COPIED, ...kernels()])
    fs.cpSync(path.join(root, entry), path.join(out, entry), { recursive: true, filter: isWanted })
  for (const [name, file] of Object.entries(binaries))
    compress(file, path.join(out, 'packed', name), true)
  compress(process.execPath, path.join(out, 'packed', 'node'), false)
  const bytes = bytesUnder(out)
  process.stdout.write(`${out}: ${(bytes / 2 ** 20).toFixed(1)} MiB\n`)
  if (bytes > MOST_BYTES) throw new Error('more than 64 MiB')
}

main()
