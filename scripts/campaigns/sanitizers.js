/**
 * Runs fuzz/tests/engine.rs, the parts of the engine that share memory between threads or use
 * `unsafe`, under AddressSanitizer (with LeakSanitizer) and ThreadSanitizer. ThreadSanitizer needs
 * an instrumented standard library as well, and therefore the component rust-src.
 *
 * Usage: node scripts/campaigns/sanitizers.js [--only thread]
 *        node scripts/campaigns/sanitizers.js --can-run   (exits with 1 if it cannot)
 */
const { root, claim, skip, campaign, option } = require('./claims')
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

const TRIPLE = 'x86_64-unknown-linux-gnu'
const target = process.env.KINDLING_FUZZ_TARGET ?? path.join(root, 'target', 'fuzzing', 'build')

function cargo(args, environment = {}) {
  return spawnSync('cargo', args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    env: { ...process.env, ...environment },
  })
}

const hasNightly = () =>
  process.platform === 'linux' &&
  process.arch === 'x64' &&
  cargo(['+nightly', '--version']).status === 0

function hasSources() {
  const { status, stdout } = spawnSync('rustc', ['+nightly', '--print', 'sysroot'], {
    encoding: 'utf8',
  })
  return status === 0 && fs.existsSync(path.join(stdout.trim(), 'lib', 'rustlib', 'src', 'rust'))
}

/** Runs the tests with a sanitizer. */
function sanitize(name, flags) {
  return cargo(
    [
      ...['+nightly', 'test', '--manifest-path', 'fuzz/Cargo.toml', '--test', 'engine'],
      // Optimization level 1 compiles fast, and keeps every access to memory.
      ...['--release', '--config', 'profile.release.opt-level=1', '--target', TRIPLE, ...flags],
    ],
    {
      RUSTFLAGS: `-Zsanitizer=${name}`,
      CARGO_TARGET_DIR: path.join(target, name),
      // No instruction set is forced: the widest one runs the most code.
      ASAN_OPTIONS: 'detect_leaks=1:detect_stack_use_after_return=1',
      TSAN_OPTIONS: 'halt_on_error=1',
    },
  )
}

const RUNS = {
  address: { name: 'AddressSanitizer', flags: [], canRun: () => true },
  thread: { name: 'ThreadSanitizer', flags: ['-Zbuild-std'], canRun: hasSources },
}

if (process.argv.includes('--can-run')) {
  process.exitCode = hasNightly() ? 0 : 1
} else {
  campaign(() => {
    for (const [kind, { name, flags, canRun }] of Object.entries(RUNS)) {
      if (![undefined, kind].includes(option('only'))) continue
      const what = `${name} finds nothing in the engine`
      if (!hasNightly()) skip(what, 'there is no nightly Rust')
      else if (!canRun()) skip(what, 'rustup component add rust-src --toolchain nightly')
      else {
        const { status, stdout, stderr } = sanitize(kind, flags)
        const passed = /test result: ok\. (\d+) passed/.exec(stdout)?.[1]
        const isClean = status === 0 && passed !== undefined
        claim(what, isClean, isClean ? `${passed} tests` : `${stdout}${stderr}`.slice(-4000))
      }
    }
  })
}
