/**
 * Checks installations that are broken or confined in ways that users meet. Each must work, or end
 * with one line that says what to do. Some need root, to mount or to make a control group, and are
 * skipped without it.
 */
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { addonName } = require('./platforms')

const PLATFORM = 'linux-x64-gnu'
const NOBODY = 65534
const isRoot = process.getuid?.() === 0

/** Copies an installed project, for a check to break. */
function copyOf(project, name) {
  const folder = path.join(path.dirname(project.folder), name)
  fs.cpSync(project.folder, folder, { recursive: true, verbatimSymlinks: true })
  return folder
}

/** Expects `kindling` to end with 1 and a single line on stderr that matches `pattern`. */
function expectLine(project, folder, pattern, options = {}) {
  const cli = path.join(folder, 'node_modules', 'kindling', 'dist', 'cli', 'index.js')
  const { status, stdout, stderr } = project.try('node', [cli, '--version'], {
    cwd: folder,
    ...options,
  })
  const lines = stderr.trim().split('\n')
  if (status !== 1 || stdout !== '' || lines.length !== 1 || !pattern.test(lines[0])) {
    throw new Error(`expected one line like ${pattern}, got ${status}: ${stdout}${stderr}`)
  }
  process.stdout.write(`   ${lines[0].replaceAll(folder, '.')}\n`)
}

/** Expects training to succeed under a command such as `taskset -c 0`. */
function expectTrained(project, prefix, options) {
  const [command, ...args] = [...prefix, 'node', 'program.cjs']
  const { status, stdout, stderr, error } = project.try(command, args, options)
  if (error) throw error
  if (status !== 0 || !stdout.includes('trained and generated')) throw new Error(stdout + stderr)
}

/** Checks of an addon that cannot be loaded. */
function missingAddons(project, scope) {
  const addonIn = (folder) =>
    path.join(folder, 'node_modules', scope, PLATFORM, addonName(PLATFORM))
  return {
    'no platform package': () => {
      const folder = copyOf(project, 'omitted')
      fs.rmSync(path.join(folder, 'node_modules', scope), { recursive: true })
      expectLine(project, folder, /^ERR_ADDON_NOT_INSTALLED: .*--omit=optional.*npm install @/)
    },
    'the package of another platform': () => {
      const folder = copyOf(project, 'foreign')
      const scoped = path.join(folder, 'node_modules', scope)
      fs.renameSync(path.join(scoped, PLATFORM), path.join(scoped, 'darwin-arm64'))
      expectLine(project, folder, /^ERR_ADDON_NOT_INSTALLED: .*darwin-arm64.*package-lock.json/)
    },
    'the package of another version': () => {
      const folder = copyOf(project, 'mixed')
      const file = path.join(folder, 'node_modules', scope, PLATFORM, 'package.json')
      fs.writeFileSync(
        file,
        JSON.stringify({ ...JSON.parse(fs.readFileSync(file)), version: '0.0.1' }),
      )
      expectLine(project, folder, /^ERR_ADDON_NOT_INSTALLED: .*but 0\.0\.1 is installed/)
    },
    'a glibc older than the addon needs': () => {
      const folder = copyOf(project, 'glibc')
      const addon = fs.readFileSync(addonIn(folder))
      addon.write('GLIBC_2.99', addon.indexOf('GLIBC_2.28'))
      fs.writeFileSync(addonIn(folder), addon)
      expectLine(project, folder, /^ERR_ADDON_NOT_LOADED: .*needs glibc 2\.99 or newer/)
    },
    'a damaged addon': () => {
      const folder = copyOf(project, 'damaged')
      fs.truncateSync(addonIn(folder), 100)
      expectLine(project, folder, /^ERR_ADDON_NOT_LOADED: .*damaged/)
    },
    'an addon that cannot be read': () => {
      const folder = copyOf(project, 'unreadable')
      fs.chmodSync(addonIn(folder), 0)
      const asUser = isRoot ? { uid: NOBODY, gid: NOBODY } : {}
      expectLine(project, folder, /^ERR_ADDON_NOT_LOADED: .*chmod/, asUser)
    },
  }
}

/** Runs `script` and then training in a mount namespace of its own. */
function mounted(project, script) {
  if (!isRoot) return 'needs root'
  const command = `${script} && exec "$0" "$@"`
  return expectTrained(project, ['/usr/bin/unshare', '--mount', '/bin/sh', '-c', command])
}

/** Trains in a control group with half a core, where control groups can be made. */
function halfACore(project) {
  const [version, at] = fs.existsSync('/sys/fs/cgroup/cpu')
    ? [1, '/sys/fs/cgroup/cpu']
    : [2, '/sys/fs/cgroup']
  const group = path.join(at, `kindling-${process.pid}`)
  try {
    fs.mkdirSync(group)
    if (version === 2) fs.writeFileSync(path.join(group, 'cpu.max'), '50000 100000')
    else fs.writeFileSync(path.join(group, 'cpu.cfs_quota_us'), '50000')
  } catch {
    return 'control groups cannot be made here'
  }
  try {
    const join = `echo $$ > ${group}/cgroup.procs && exec "$0" "$@"`
    return expectTrained(project, ['/bin/sh', '-c', join])
  } finally {
    fs.rmdirSync(group)
  }
}

/** Checks of systems that confine the process; training works in all of them. */
function confined(project) {
  return {
    'a home that cannot be written': () => expectTrained(project, [], { env: { HOME: '/proc' } }),
    'no folder for temporary files': () =>
      expectTrained(project, [], {
        env: { TMPDIR: '/nowhere', TMP: '/nowhere', TEMP: '/nowhere' },
      }),
    'no /dev/shm': () => mounted(project, '/bin/umount /dev/shm'),
    'a read-only /tmp': () =>
      mounted(
        project,
        // The project lies in /tmp itself, so it moves out of the way first.
        `/bin/mount --bind ${path.dirname(project.folder)} /mnt && ` +
          `/bin/mount -t tmpfs -o ro none /tmp && cd /mnt/project && PATH=/mnt/bin`,
      ),
    'neither io_uring nor perf': () => {
      const program = path.join(path.dirname(project.folder), 'deny-calls')
      const source = path.join(__dirname, 'deny-calls.c')
      if (spawnSync('cc', ['-o', program, source]).status !== 0) return 'needs cc'
      return expectTrained(project, [program])
    },
    'a single core': () => expectTrained(project, ['/usr/bin/taskset', '-c', '0']),
    'half a core': () => halfACore(project),
  }
}

/** Returns all checks of broken and confined installations of `project`. */
function brokenInstalls(project, scope) {
  return { ...missingAddons(project, scope), ...confined(project) }
}

module.exports = { brokenInstalls }
