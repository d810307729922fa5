/**
 * Trains with the built addons (target/addons) on systems other than this one: a Debian with an old
 * glibc, in a root file system made by debootstrap, and processors without AVX, without AVX-512 and
 * of ARM, emulated by qemu. As root, installs the Debian packages that this needs; what is not
 * available is skipped. Ends with `N passed, N failed, N skipped`.
 *
 * Usage: node scripts/packages/foreign-systems.js, after scripts/packages/build-addon.js.
 */
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { FILES } = require('./consumers/program')
const { addonName, addonPath, root } = require('./platforms')
const { tool } = require('./registry')

const DEBIAN = 'bullseye'
const PACKAGES = {
  debootstrap: ['debootstrap'],
  'qemu-x86_64': ['qemu-user'],
  'qemu-aarch64': ['qemu-user', 'libc6-arm64-cross', 'libstdc++6-arm64-cross'],
}

const has = (command) => spawnSync('sh', ['-c', `command -v ${command}`]).status === 0

/** Returns whether a program is there, installing its Debian packages where that is possible. */
function isAvailable(command) {
  if (has(command)) return true
  if (process.getuid() !== 0 || !has('apt-get')) return false
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  spawnSync('apt-get', ['update', '-qq'], { env })
  spawnSync('apt-get', ['install', '-qq', '-y', ...PACKAGES[command]], { env })
  return has(command)
}

/** Lays out a project with `kindling` in it, as npm would. */
function layOut(folder, platform) {
  const main = path.join(folder, 'node_modules', 'kindling')
  fs.mkdirSync(main, { recursive: true })
  for (const entry of ['dist', 'package.json'])
    fs.cpSync(path.join(root, entry), path.join(main, entry), { recursive: true })
  fs.copyFileSync(addonPath(platform), path.join(main, addonName(platform)))
  for (const name of ['commander', 'zod'])
    fs.cpSync(path.join(root, 'node_modules', name), path.join(folder, 'node_modules', name), {
      recursive: true,
    })
  for (const name of ['corpus.txt', 'program.cjs'])
    fs.writeFileSync(path.join(folder, name), FILES[name])
  return folder
}

/** Returns null if the program ran to its end, or else what it printed. */
function train(folder, command, ...args) {
  const options = { cwd: folder, encoding: 'utf8', timeout: 600_000 }
  const { status, stdout, stderr, error } = spawnSync(command, args, options)
  if (status === 0 && stdout.includes('trained and generated')) return null
  return `${error?.stack ?? ''}${stdout}${stderr}`
}

const nodeOf = (name) => path.join(tool(name), 'bin', 'node')

/** Trains in a root file system of Debian 11, with glibc 2.31. */
function oldDebian(folder) {
  const rootfs = path.join(folder, 'root')
  const made = spawnSync(
    'debootstrap',
    ['--variant=minbase', '--include=libstdc++6', DEBIAN, rootfs],
    { encoding: 'utf8' },
  )
  if (made.status !== 0) return { skipped: 'debootstrap could not make the file system' }
  layOut(path.join(rootfs, 'project'), 'linux-x64-gnu')
  fs.copyFileSync(nodeOf('node20'), path.join(rootfs, 'project', 'node'))
  const command = 'cd /project && ./node program.cjs'
  return { failure: train(folder, 'chroot', rootfs, 'sh', '-c', command) }
}

/** Trains on a processor that qemu emulates. */
const emulated = (platform, node, command, ...args) => ({
  needs: command,
  platform,
  run: (folder) => ({
    failure: train(layOut(folder, platform), command, ...args, nodeOf(node), 'program.cjs'),
  }),
})

const CHECKS = {
  'Debian 11, glibc 2.31': { needs: 'debootstrap', platform: 'linux-x64-gnu', run: oldDebian },
  'x86-64 without AVX': emulated('linux-x64-gnu', 'node20', 'qemu-x86_64', '-cpu', 'Westmere'),
  'x86-64 with AVX2': emulated('linux-x64-gnu', 'node20', 'qemu-x86_64', '-cpu', 'Haswell'),
  'ARM, 64 bits': emulated(
    'linux-arm64-gnu',
    'node20-arm64',
    'qemu-aarch64',
    '-L',
    '/usr/aarch64-linux-gnu',
  ),
}

/** Runs a check in a folder of its own. */
function perform({ needs, platform, run }) {
  if (!fs.existsSync(addonPath(platform))) return { skipped: `no addon for ${platform}` }
  if (process.getuid() !== 0 && needs === 'debootstrap') return { skipped: 'needs root' }
  if (!isAvailable(needs)) return { skipped: `no ${needs}` }
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'kindling-foreign-'))
  try {
    return run(folder)
  } finally {
    fs.rmSync(folder, { recursive: true, force: true })
  }
}

const counts = { passed: 0, failed: 0, skipped: 0 }
for (const [name, check] of Object.entries(CHECKS)) {
  const { skipped, failure } = perform(check)
  counts[skipped ? 'skipped' : failure ? 'failed' : 'passed']++
  const verdict = skipped ? `skipped (${skipped})` : failure ? 'not ok' : 'ok'
  process.stdout.write(`${verdict} trains on ${name}\n${failure ?? ''}`)
}
const { passed, failed, skipped } = counts
process.stdout.write(`${passed} passed, ${failed} failed, ${skipped} skipped\n`)
process.exitCode = failed > 0 ? 1 : 0
