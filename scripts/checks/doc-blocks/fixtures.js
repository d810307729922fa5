/**
 * Writes the files that the pages assume: a text, an archive, models of other programs, and
 * `kindling` and `npx` on the path.
 */
const fs = require('node:fs')
const path = require('node:path')
const { gzipSync } = require('node:zlib')

const root = path.join(__dirname, '..', '..', '..')
const MODELS = path.join(root, 'crates/kindling-core/tests/fixtures/exchange/models')
const TEXT_BYTES = 120_000

/** Writes `kindling` and `npx`, which run this tree's command line; returns their folder. */
function writePrograms(folder) {
  fs.mkdirSync(folder)
  const program = (name, text) =>
    fs.writeFileSync(path.join(folder, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 })
  const cli = path.join(root, 'dist', 'cli', 'index.js')
  program('kindling', `exec "${process.execPath}" "${cli}" "$@"`)
  program('npx', 'exec "$@"')
  return folder
}

/** Returns `bytes` (at most 64 KiB) as a Zstandard frame of one uncompressed block (RFC 8878). */
function zstd(bytes) {
  const header = Buffer.alloc(10)
  header.writeUInt32LE(0xfd2fb528, 0)
  // A single segment, whose size takes two bytes and has 256 subtracted.
  header.writeUInt8(0x60, 4)
  header.writeUInt16LE(bytes.length - 256, 5)
  // The last block, raw.
  header.writeUIntLE((bytes.length << 3) | 1, 7, 3)
  return Buffer.concat([header, bytes])
}

/** Writes the files to a new folder. */
function writeFixtures(folder) {
  const write = (name, contents) => {
    const file = path.join(folder, name)
    fs.mkdirSync(path.dirname(file), { recursive: true })
    fs.writeFileSync(file, contents)
  }
  const book = fs.readFileSync(path.join(root, 'assets', 'moby-dick.txt')).subarray(0, TEXT_BYTES)
  // Drop a last character that was cut off.
  const text = new TextDecoder().decode(book).replaceAll('\uFFFD', '')
  write('corpus.txt', text)
  write('book.txt', text)
  const paragraphs = text.split(/\n\n+/).filter((paragraph) => paragraph.length > 100)
  const lines = paragraphs.map((body) => `${JSON.stringify({ text: body, body })}\n`)
  write('web/a/1.jsonl.zst', zstd(Buffer.from(lines.slice(0, 60).join('')).subarray(0, 60_000)))
  write('web/b/2.jsonl.zst', zstd(Buffer.from(lines.slice(60, 90).join(''))))
  write('dump.gz', gzipSync(text))
  fs.cpSync(path.join(MODELS, 'llama'), path.join(folder, 'models/llama'), {
    recursive: true,
  })
  // scripts/run_clm.sh runs dist/cli/index.js of the folder above its own.
  fs.mkdirSync(path.join(folder, 'scripts'))
  fs.copyFileSync(path.join(root, 'scripts', 'run_clm.sh'), path.join(folder, 'scripts/run_clm.sh'))
  fs.symlinkSync(path.join(root, 'dist'), path.join(folder, 'dist'))
  fs.symlinkSync(path.join(root, 'examples'), path.join(folder, 'examples'))
  fs.mkdirSync(path.join(folder, 'node_modules'))
  fs.symlinkSync(root, path.join(folder, 'node_modules', 'kindling'))
}

module.exports = { writeFixtures, writePrograms }
