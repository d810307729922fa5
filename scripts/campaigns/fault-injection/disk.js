/**
 * Models what a disk may hold after a power cut, from a record of what a process did (recorder.c).
 *
 * The bytes of a file are kept once the file was synced. A change of names is kept once one of its
 * folders was synced, along with the earlier changes of the same folders; a rename is one change of
 * both its folders. Anything that was not synced may or may not be kept: file systems write it in
 * their own time. A file whose name was kept but whose bytes were not is empty, holds zeros, or
 * holds the first part of the bytes.
 */
const fs = require('node:fs')
const path = require('node:path')

/** Reads a record. Returns its calls: { op, number, path, other, bytes }. */
function readRecord(file) {
  const record = fs.readFileSync(file)
  const calls = []
  for (let at = 0; at < record.length;) {
    const end = record.indexOf('\n', at)
    const [op, number, length, where, other] = record.toString('utf8', at, end).split('\t')
    at = end + 1 + Number(length)
    const bytes = record.subarray(end + 1, at)
    if (!where.endsWith(' (deleted)'))
      calls.push({ op, number: Number(number), path: where, other, bytes })
  }
  return calls
}

const newFile = () => ({ bytes: Buffer.alloc(0), kept: null })
/** `kept` are the names that a power cut keeps. */
const newFolder = () => ({ names: new Map(), kept: new Map() })

class Disk {
  constructor() {
    this.root = newFolder()
    /** Changes of names since the last sync, each a list of [folder, name, new node or null]. */
    this.pending = []
  }

  /** Returns the file or folder at a path; null if there is none. */
  find(where) {
    const parts = where.split('/').filter((part) => part !== '')
    return parts.reduce((node, part) => node?.names?.get(part) ?? null, this.root)
  }

  /** Changes names in one step: pairs of a path and a node, null to remove it. */
  #setNames(...changes) {
    const change = []
    for (const [where, node] of changes) {
      const parent = this.find(path.dirname(where) === '.' ? '' : path.dirname(where))
      if (parent !== null) change.push([parent, path.basename(where), node])
    }
    change.forEach(setName('names'))
    this.pending.push(change)
  }

  /** Applies one recorded call. */
  apply({ op, number, path: where, other, bytes }) {
    const node = this.find(where)
    if (op === 'create' || op === 'empty') {
      if (node === null) this.#setNames([where, newFile()])
      else if (op === 'empty') node.bytes = Buffer.alloc(0)
    } else if (op === 'write') {
      const whole = Buffer.alloc(Math.max(node.bytes.length, number + bytes.length))
      node.bytes.copy(whole)
      bytes.copy(whole, number)
      node.bytes = whole
    } else if (op === 'cut') {
      const cut = Buffer.alloc(number)
      node.bytes.copy(cut)
      node.bytes = cut
    } else if (op === 'mkdir') this.#setNames([where, newFolder()])
    else if (op === 'remove') this.#setNames([where, null])
    else if (op === 'link') this.#setNames([other, node])
    else if (op === 'rename') this.#setNames([where, null], [other, node])
    else if (op === 'exchange') {
      const second = this.find(other)
      this.#setNames([where, second], [other, node])
    } else if (op === 'sync' && node !== null) this.#sync(node)
    else if (op === 'syncall') this.#syncAll(this.root)
  }

  #sync(node) {
    if (!node.names) {
      node.kept = node.bytes
      return
    }
    const folders = new Set([node])
    const touches = (change) => change.some(([folder]) => folders.has(folder))
    const synced = new Set()
    for (const change of this.pending.toReversed().filter(touches)) {
      synced.add(change)
      for (const [folder] of change) folders.add(folder)
    }
    for (const change of this.pending.filter((one) => synced.has(one)))
      change.forEach(setName('kept'))
    this.pending = this.pending.filter((one) => !synced.has(one))
  }

  #syncAll(node) {
    this.#sync(node)
    for (const child of node.names?.values() ?? []) this.#syncAll(child)
  }

  /** Adds what a real folder holds, as if all of it had been synced. */
  load(folder, node = this.root) {
    for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
      const place = path.join(folder, entry.name)
      const child = entry.isDirectory() ? newFolder() : newFile()
      if (entry.isDirectory()) this.load(place, child)
      else child.kept = child.bytes = fs.readFileSync(place)
      node.names.set(entry.name, child)
      node.kept.set(entry.name, child)
    }
  }

  /**
   * Writes what is left after a power cut to `folder`.
   *
   * @param keeps - how much of what was not synced is kept: `nothing`; `names`, which are those of
   * files without their bytes; or a random part, by a function that draws an integer in [0, bound).
   */
  write(folder, keeps) {
    const count = { nothing: 0, names: this.pending.length }[keeps]
    const kept = this.pending.slice(0, count ?? keeps(this.pending.length + 1))
    const names = new Map()
    const namesOf = (node) => {
      if (!names.has(node)) names.set(node, new Map(node.kept))
      return names.get(node)
    }
    for (const [parent, name, node] of kept.flat()) {
      if (node === null) namesOf(parent).delete(name)
      else namesOf(parent).set(name, node)
    }
    const writeFolder = (place, node) => {
      fs.mkdirSync(place, { recursive: true })
      for (const [name, child] of namesOf(node)) {
        const inside = path.join(place, name)
        if (child.names) writeFolder(inside, child)
        else fs.writeFileSync(inside, bytesAfter(child, keeps))
      }
    }
    writeFolder(folder, this.root)
  }
}

/** Returns a function that applies a change to `names` or `kept`. */
function setName(which) {
  return ([folder, name, node]) => {
    if (node === null) folder[which].delete(name)
    else folder[which].set(name, node)
  }
}

function bytesAfter(file, keeps) {
  const { bytes, kept } = file
  if (kept === bytes) return bytes
  if (keeps === 'nothing') return kept ?? Buffer.alloc(0)
  if (keeps === 'names') return kept ?? Buffer.alloc(bytes.length)
  const written = bytes.subarray(0, keeps(bytes.length + 1))
  return Buffer.concat([written, (kept ?? Buffer.alloc(0)).subarray(written.length)])
}

module.exports = { Disk, readRecord }
