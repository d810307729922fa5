/** Atomic writes and coded errors of the file system. */
import { execFileSync } from 'node:child_process'
import {
  mkdirSync,
  readFileSync,
  readdirSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { fileOperation, makeFolder, readText, writeFileAtomic } from '../src/files'
import { rejectsWith, temporaryFolder } from './helpers'

test('a file is replaced completely, and a failed write leaves nothing behind', async (t) => {
  const folder = temporaryFolder(t)
  const path = join(folder, 'config.json')
  writeFileSync(`${path}.tmp`, 'left by a killed process')
  for (const text of ['a longer first text', 'zweiter Text: ü']) {
    await writeFileAtomic(path, text)
    t.is(readFileSync(path, 'utf8'), text)
  }
  mkdirSync(join(folder, 'folder'))
  await rejectsWith(t, 'ERR_IO', () => writeFileAtomic(join(folder, 'folder'), 'text'))
  await rejectsWith(t, 'ERR_IO', () => writeFileAtomic(join(folder, 'none', 'file'), 'text'))
  t.deepEqual(readdirSync(folder).sort(), ['config.json', 'folder'])
})

test('only regular files of a bounded size are read as a whole', async (t) => {
  const folder = temporaryFolder(t)
  const path = (name: string): string => join(folder, name)
  execFileSync('mkfifo', [path('pipe')])
  symlinkSync('/dev/zero', path('zeros'))
  writeFileSync(path('huge'), '')
  truncateSync(path('huge'), 2 ** 30)
  for (const name of ['pipe', 'zeros', 'huge', '.'])
    await rejectsWith(t, 'ERR_SOME', async () => readText(path(name), 'ERR_SOME'))
  writeFileSync(path('text'), 'ü')
  symlinkSync('text', path('link'))
  t.is(readText(path('link'), 'ERR_SOME'), 'ü')
  for (const name of ['none', 'text/below'])
    await rejectsWith(t, 'ERR_NOT_FOUND', async () => readText(path(name), 'ERR_SOME'))
})

test('makeFolder creates missing parents and accepts an existing folder', async (t) => {
  const path = join(temporaryFolder(t), 'a', 'b')
  await makeFolder(path)
  await makeFolder(path)
  t.deepEqual(readdirSync(path), [])
})

const codes = [
  ['write', 'ENOSPC', 'ERR_DISK_FULL'],
  ['write', 'EACCES', 'ERR_NOT_WRITABLE'],
  ['write', 'EROFS', 'ERR_NOT_WRITABLE'],
  ['write', 'ENOENT', 'ERR_IO'],
  ['read', 'ENOENT', 'ERR_NOT_FOUND'],
  ['read', 'EACCES', 'ERR_IO'],
] as const
for (const [action, system, code] of codes) {
  test(`${system} of a ${action} operation is ${code}`, async (t) => {
    const failing = (): Promise<never> =>
      Promise.reject(Object.assign(new Error(`${system}: reason`), { code: system }))
    const message = await rejectsWith(t, code, () => fileOperation(action, 'some/file', failing))
    t.true(message.startsWith(`cannot ${action} some/file: `), message)
  })
}
