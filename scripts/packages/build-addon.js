/**
 * Builds the addon that the package of a platform ships, into target/addons. For Linux, zig (fetched
 * once from PyPI) links it to an old glibc or to musl, on any Linux machine; for macOS and Windows
 * it is built on the platform itself. The addon for Linux on x86-64 holds the CUDA kernels.
 *
 * Usage: node scripts/packages/build-addon.js PLATFORM [--without-cuda]
 */
require('../toolchain').checkToolchain()

const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { cudaEnvironment } = require('../cuda-toolkit')
const { fetchWheels, FetchError } = require('../wheels')
const { addonPath, ADDONS, PLATFORMS, root } = require('./platforms')
const { checkSymbols } = require('./symbols')

const LIBRARIES = {
  linux: 'libkindling_napi.so',
  darwin: 'libkindling_napi.dylib',
  win32: 'kindling_napi.dll',
}

/** Returns the environment in which `cargo zigbuild` runs. */
function zigEnvironment(env) {
  const folder = fetchWheels({
    folder: path.join(root, 'target', 'zig'),
    requirements: path.join(__dirname, 'zig.txt'),
    what: 'zig (100 MB)',
    otherwise: 'or build an addon for this machine alone with "npm run build:native:dist"',
    prepare: (at) => fs.chmodSync(path.join(at, 'ziglang', 'zig'), 0o755),
  })
  return {
    ...env,
    PATH: `${path.join(folder, 'bin')}${path.delimiter}${env.PATH}`,
    CARGO_ZIGBUILD_ZIG_PATH: path.join(folder, 'ziglang', 'zig'),
  }
}

function run(command, args, env) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env })
  if (error) throw error
  if (status !== 0) throw new FetchError(`failed: ${command} ${args.join(' ')}`)
}

/** Builds the addon for `platform` and returns its path. */
function buildAddon(platform, { withCuda }) {
  const { npm, target, glibc, features = [], rustflags } = PLATFORMS[platform]
  const [os] = npm.os
  const chosen = features.filter((feature) => withCuda || feature !== 'cuda')
  let env = chosen.includes('cuda') ? cudaEnvironment() : { ...process.env }
  if (rustflags) env.RUSTFLAGS = rustflags
  if (os === 'linux') env = zigEnvironment(env)
  if (spawnSync('rustup', ['--version']).status === 0) run('rustup', ['target', 'add', target], env)
  const command = os === 'linux' ? 'zigbuild' : 'build'
  const options = ['--locked', '--profile', 'dist', '-p', 'kindling-napi']
  const listed = chosen.length > 0 ? ['--features', chosen.join(',')] : []
  run(
    'cargo',
    [command, ...options, ...listed, '--target', target + (glibc ? `.${glibc}` : '')],
    env,
  )
  const built = path.join(process.env.CARGO_TARGET_DIR ?? path.join(root, 'target'), target, 'dist')
  fs.mkdirSync(ADDONS, { recursive: true })
  fs.copyFileSync(path.join(built, LIBRARIES[os]), addonPath(platform))
  return addonPath(platform)
}

function main() {
  const platform = process.argv[2]
  if (PLATFORMS[platform] === undefined) {
    const names = Object.keys(PLATFORMS).join(', ')
    process.stderr.write(`usage: node scripts/packages/build-addon.js PLATFORM, one of ${names}\n`)
    process.exitCode = 2
    return
  }
  try {
    const file = buildAddon(platform, { withCuda: !process.argv.includes('--without-cuda') })
    const size = (fs.statSync(file).size / 1e6).toFixed(1)
    process.stdout.write(`${path.relative(root, file)}: ${size} MB\n`)
    if (PLATFORMS[platform].npm.os[0] === 'linux') checkSymbols(file, platform)
  } catch (error) {
    if (!(error instanceof FetchError)) throw error
    process.stderr.write(`${error.message}\n`)
    process.exitCode = 1
  }
}

main()
