/** Loading the addon: the names of platforms, and errors that say what to do. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { explainFailure } from '../src/native/explain'
import { loadAddon } from '../src/native/load'
import { platformName } from '../src/native/platform'
import { temporaryFolder } from './helpers'

const LINUX = { platform: 'linux', arch: 'x64', musl: false }

test('platforms have the names of their packages', (t) => {
  const names = [
    LINUX,
    { ...LINUX, musl: true },
    { ...LINUX, arch: 'arm64' },
    { platform: 'darwin', arch: 'arm64', musl: false },
    { platform: 'win32', arch: 'x64', musl: false },
  ].map(platformName)
  t.deepEqual(names, [
    'linux-x64-gnu',
    'linux-x64-musl',
    'linux-arm64-gnu',
    'darwin-arm64',
    'win32-x64-msvc',
  ])
  t.is(platformName({ platform: 'linux', arch: 'arm64', musl: true }), null)
  t.is(platformName({ platform: 'freebsd', arch: 'x64', musl: false }), null)
})

function packageIn(folder: string, version: string): void {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ version }))
}

test('a platform without a package is named, with what to do', (t) => {
  const root = temporaryFolder(t)
  packageIn(root, '1.2.3')
  t.throws(() => loadAddon(root, { platform: 'freebsd', arch: 'x64', musl: false }), {
    code: 'ERR_ADDON_NOT_INSTALLED',
    message: /no addon for freebsd on x64; .*npm run build/,
  })
  t.throws(() => loadAddon(root, LINUX), {
    code: 'ERR_ADDON_NOT_INSTALLED',
    message: /run npm install @kindling-lm\/linux-x64-gnu@1\.2\.3/,
  })
})

test('an installed addon of another version is not loaded', (t) => {
  const root = temporaryFolder(t)
  packageIn(root, '1.2.3')
  packageIn(join(root, 'node_modules', '@kindling-lm', 'linux-x64-gnu'), '1.2.2')
  t.throws(() => loadAddon(root, LINUX), {
    code: 'ERR_ADDON_NOT_INSTALLED',
    message: /needs @kindling-lm\/linux-x64-gnu 1\.2\.3, but 1\.2\.2 is installed/,
  })
})

test('a file that is not an addon is reported as damaged', (t) => {
  const root = temporaryFolder(t)
  packageIn(root, '1.2.3')
  writeFileSync(join(root, 'kindling.linux-x64-gnu.node'), 'text')
  t.throws(() => loadAddon(root, LINUX), { code: 'ERR_ADDON_NOT_LOADED', message: /damaged/ })
})

const REFUSALS: readonly (readonly [string, RegExp])[] = [
  ["/lib/libc.so.6: version `GLIBC_2.28' not found (required by a.node)", /glibc 2\.28 or newer/],
  ['Error relocating a.node: gnu_get_libc_version: symbol not found', /another C library/],
  ['a.node: failed to map segment from shared object', /noexec/],
  ['a.node: cannot open shared object file: Permission denied', /chmod/],
  ['a.node: cannot open shared object file: No such file or directory', /npm install/],
  ['something new', /reinstall/],
]
for (const [answer, cure] of REFUSALS) {
  test(`the loader's answer "${answer}" says what to do`, (t) => {
    const error = explainFailure('a.node', new Error(answer))
    t.is(error.code, 'ERR_ADDON_NOT_LOADED')
    t.regex(error.message, cure)
    t.false(error.message.includes('\n'))
  })
}
