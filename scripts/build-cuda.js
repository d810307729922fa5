/**
 * Builds the addon with CUDA, which runs on the CPU as well, and prints its size and the libraries
 * it links. The machine needs neither a GPU nor a CUDA toolkit. With --clippy, lints instead. The
 * first build takes a few minutes.
 *
 * Usage: node scripts/build-cuda.js [--output-dir DIR] [--clippy] (npm run build:cuda)
 */
require('./toolchain').checkToolchain()

const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { cudaEnvironment } = require('./cuda-toolkit')
const { install, markBuilt, root, setup } = require('./setup')
const { FetchError } = require('./wheels')

const ADDON = 'kindling.linux-x64-gnu.node'
/** The only libraries that the addon may link; none of CUDA's is among them. */
const LIBRARIES = /^(libgcc_s|libm|libc|libpthread|libdl|librt|ld-linux-x86-64)\.so\.\d$/

function run(command, args, env) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env })
  if (error) throw error
  if (status !== 0) throw new FetchError(`failed: ${command} ${args.join(' ')}`)
}

function clippy(env) {
  const lints = ['--', '-D', 'warnings']
  const features = [
    '-p',
    'kindling-napi',
    '-p',
    'kindling-core',
    '--features',
    'kindling-napi/cuda',
  ]
  run('cargo', ['clippy', '--locked', '--release', ...features, ...lints], env)
}

/** Builds the addon in `folder` and returns its path. */
function build(env, folder) {
  const places = ['--manifest-path', 'crates/kindling-napi/Cargo.toml']
  const options = ['--platform', '--release', '--no-js', '--features', 'cuda']
  run('npx', ['napi', 'build', ...options, ...places, '--output-dir', folder], env)
  const file = path.join(folder, ADDON)
  run('strip', [file], env)
  return file
}

/** Returns the libraries that a file links, or null without readelf. */
function neededBy(file) {
  const { stdout, status } = spawnSync('readelf', ['-d', file], { encoding: 'utf8' })
  if (status !== 0) return null
  return [...stdout.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, name]) => name)
}

function report(file) {
  const needed = neededBy(file)
  const size = (fs.statSync(file).size / 1e6).toFixed(1)
  process.stdout.write(
    `${path.relative(root, file)}: ${size} MB, links ${needed?.join(', ') ?? '(unknown: no readelf)'}\n`,
  )
  const foreign = needed?.filter((name) => !LIBRARIES.test(name)) ?? []
  if (foreign.length > 0) {
    throw new FetchError(`the addon links ${foreign.join(', ')}, and would not load without`)
  }
}

function main() {
  const at = process.argv.indexOf('--output-dir')
  const folder = at > 0 ? path.resolve(process.argv[at + 1]) : root
  try {
    const env = cudaEnvironment()
    if (process.argv.includes('--clippy')) return clippy(env)
    install()
    fs.mkdirSync(folder, { recursive: true })
    report(build(env, folder))
    if (folder !== root) return
    // Keeps npm start and npm test from replacing this addon before the sources change.
    markBuilt('build:native')
    setup()
  } catch (error) {
    if (!(error instanceof FetchError)) throw error
    process.stderr.write(`${error.message}\n`)
    process.exitCode = 1
  }
}

main()
