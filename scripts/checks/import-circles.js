/**
 * Checks that imports have no circles: in every source folder, the graph of its entries (files and
 * folders) is acyclic, where an edge means that a file of one entry imports a file of another. So
 * neither files nor folders import each other in a circle.
 *
 * Rust: `use` and paths from `crate`, `super` and `self`, outside `#[cfg(test)]`. A name that a
 * file re-exports or imports counts as an import of the file that defines it, and a `pub use` alone
 * is not an import. TypeScript: relative imports, those of types included.
 *
 * Prints each circle with its imports, and exits with 1 if there is one.
 */
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..', '..')
const RUST = [
  'crates/kindling-core/src',
  'crates/kindling-napi/src',
  'crates/kindling-kernel-emulator/src',
  'crates/kindling-fake-libcuda/src',
]
const TYPESCRIPT = ['src']

function filesUnder(folder, extension) {
  const entries = fs.readdirSync(path.join(root, folder), { recursive: true })
  return entries.filter((name) => name.endsWith(extension)).map((name) => path.join(folder, name))
}

/** Blanks out comments, and the contents of strings and characters, keeping offsets. */
function withoutComments(text) {
  const token =
    /\/\/[^\n]*|\/\*[\s\S]*?\*\/|r(#*)"[\s\S]*?"\1|"(?:\\[\s\S]|[^"\\])*"|'(?:\\.[^']*|[^'\\])'/g
  return text.replace(token, (found) => found.replace(/[^\n]/g, ' '))
}

/** Returns the offset after the brace that closes the one at `open`. */
function closing(text, open) {
  let depth = 0
  for (let at = open; at < text.length; at++) {
    if (text[at] === '{') depth++
    if (text[at] === '}' && --depth === 0) return at + 1
  }
  return text.length
}

/** Blanks out items under `#[cfg(test)]`, and returns the names of the modules among them. */
function withoutTests(text) {
  const testModules = []
  let result = text
  for (const found of text.matchAll(/#\[cfg\(test\)\]/g)) {
    const rest = text.slice(found.index)
    const end = /[;{]/.exec(rest)
    if (!end) continue
    const module = /\bmod\s+(\w+)\s*;/.exec(rest.slice(0, end.index + 1))
    if (module) testModules.push(module[1])
    const open = found.index + end.index
    // `use a::{b, c};` has a brace before its semicolon.
    const isUse = /\buse\b/.test(rest.slice(0, end.index))
    const stop = end[0] === ';' || isUse ? text.indexOf(';', open) + 1 : closing(text, open)
    const blank = text.slice(found.index, stop).replace(/[^\n]/g, ' ')
    result = result.slice(0, found.index) + blank + result.slice(stop)
  }
  return { text: result, testModules }
}

/** Splits at the commas outside braces. */
function splitList(text) {
  const parts = ['']
  let depth = 0
  for (const character of text) {
    if (character === '{') depth++
    if (character === '}') depth--
    if (character === ',' && depth === 0) parts.push('')
    else parts[parts.length - 1] += character
  }
  return parts.map((part) => part.trim()).filter(Boolean)
}

/** Expands `a::{b, c::d as e}` to [{ path: ['a', 'b'], name: 'b' }, ...]. */
function expandUse(tree, prefix = []) {
  const open = tree.indexOf('{')
  if (open < 0) {
    const [whole, alias] = tree.split(/\s+as\s+/)
    const parts = [...prefix, ...whole.split('::').map((part) => part.trim())]
    if (parts.at(-1) === 'self') parts.pop()
    return [{ path: parts, name: alias ?? parts.at(-1) }]
  }
  const outer = tree
    .slice(0, open)
    .split('::')
    .map((part) => part.trim())
    .filter(Boolean)
  const inner = tree.slice(open + 1, tree.lastIndexOf('}'))
  return splitList(inner).flatMap((part) => expandUse(part, [...prefix, ...outer]))
}

/** Parses the module of a file, and the modules written inside it. */
function parseFile(file, module, text) {
  const inline = []
  for (const found of text.matchAll(/\bmod\s+(\w+)\s*\{/g)) {
    const open = found.index + found[0].length - 1
    inline.push({ name: found[1], start: open, end: closing(text, open) })
  }
  const moduleAt = (offset) => [
    ...module,
    ...inline.filter((m) => m.start < offset && offset < m.end).map((m) => m.name),
  ]
  const uses = []
  const body = text.replace(
    /(^|[;{}\]]|\n)(\s*)(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);/g,
    (whole, before, space, isPublic, tree, offset) => {
      const from = moduleAt(offset + before.length + space.length)
      for (const { path: parts, name } of expandUse(tree.replace(/\s+/g, ' '))) {
        uses.push({ from, parts, name, isPublic: Boolean(isPublic) })
      }
      return whole.replace(/[^\n]/g, ' ')
    },
  )
  const code = body.replace(/\bpub\([^)]*\)/g, (found) => ' '.repeat(found.length))
  for (const found of code.matchAll(/(?<![\w:$])((?:crate|super|self)(?:::\w+)+)/g)) {
    uses.push({ from: moduleAt(found.index), parts: found[1].split('::'), isPublic: false })
  }
  return { file, module, uses }
}

/** Returns the imports of a crate as [importing file, imported file]. */
function rustImports(folder) {
  const texts = new Map()
  const testFiles = new Set()
  for (const file of filesUnder(folder, '.rs')) {
    const source = fs.readFileSync(path.join(root, file), 'utf8')
    const { text, testModules } = withoutTests(withoutComments(source))
    texts.set(file, text)
    const base = /(^|\/)(mod|lib|main)\.rs$/.test(file) ? path.dirname(file) : file.slice(0, -3)
    for (const name of testModules) {
      testFiles.add(path.join(base, `${name}.rs`)).add(path.join(base, name, 'mod.rs'))
    }
  }
  const files = new Map()
  for (const [file, text] of texts) {
    if (testFiles.has(file)) continue
    const parts = path.relative(folder, file).slice(0, -3).split('/')
    if (['mod', 'lib', 'main'].includes(parts.at(-1))) parts.pop()
    files.set(parts.join('::'), parseFile(file, parts, text))
  }

  /** Returns the longest path that is a module of a file, and what follows it. */
  const locate = (parts) => {
    for (let length = parts.length; length >= 0; length--) {
      const parsed = files.get(parts.slice(0, length).join('::'))
      if (parsed) return { parsed, rest: parts.slice(length) }
    }
    return undefined
  }
  const absolute = (from, parts) => {
    if (parts[0] === 'crate') return parts.slice(1)
    const base = [...from]
    let at = 0
    if (parts[0] === 'self') at = 1
    for (; parts[at] === 'super'; at++) base.pop()
    if (at === 0 && !files.has([...from, parts[0]].join('::'))) return undefined
    return [...base, ...parts.slice(at)]
  }
  /** Returns the file that defines what a path names. */
  const resolve = (from, parts, seen = new Set()) => {
    const target = absolute(from, parts)
    const found = target && locate(target)
    if (!found) return undefined
    const { parsed, rest } = found
    const key = `${parsed.file} ${rest[0]}`
    if (rest.length === 0 || seen.has(key)) return parsed.file
    seen.add(key)
    const alias = parsed.uses.find(
      (use) => use.name === rest[0] && use.from.length === parsed.module.length,
    )
    return (alias && resolve(alias.from, [...alias.parts, ...rest.slice(1)], seen)) || parsed.file
  }

  const imports = []
  for (const { file, uses } of files.values()) {
    for (const { from, parts, isPublic } of uses) {
      const target = isPublic ? undefined : resolve(from, parts)
      if (target && target !== file) imports.push([file, target])
    }
  }
  return imports
}

/** Returns the imports of TypeScript files as [importing file, imported file]. */
function typescriptImports(folder) {
  return filesUnder(folder, '.ts').flatMap((file) => {
    const text = fs.readFileSync(path.join(root, file), 'utf8')
    const specifiers = [...text.matchAll(/\b(?:from|import)\s*\(?\s*'(\.[^']*)'/g)]
    return specifiers
      .map((found) => path.join(path.dirname(file), found[1].replace(/\.js$/, '.ts')))
      .filter((target) => fs.existsSync(path.join(root, target)))
      .map((target) => [file, target])
  })
}

/**
 * Returns, per folder, the graph of its entries: entry -> entry -> an import that connects them.
 */
function graphs(imports) {
  const byFolder = new Map()
  for (const [file, target] of imports) {
    const [from, to] = [file.split('/'), target.split('/')]
    let depth = 0
    while (from[depth] === to[depth]) depth++
    const folder = from.slice(0, depth).join('/')
    if (!byFolder.has(folder)) byFolder.set(folder, new Map())
    const graph = byFolder.get(folder)
    if (!graph.has(from[depth])) graph.set(from[depth], new Map())
    const edges = graph.get(from[depth])
    if (!edges.has(to[depth])) edges.set(to[depth], [])
    edges.get(to[depth]).push(`${file} -> ${target}`)
  }
  return byFolder
}

/** Returns the strongly connected components of more than one entry. */
function circles(graph) {
  const reachable = (start) => {
    const seen = new Set()
    const open = [start]
    while (open.length > 0) {
      for (const next of graph.get(open.pop())?.keys() ?? []) {
        if (!seen.has(next)) {
          seen.add(next)
          open.push(next)
        }
      }
    }
    return seen
  }
  const reach = new Map([...graph.keys()].map((entry) => [entry, reachable(entry)]))
  const found = new Map()
  for (const [entry, others] of reach) {
    if (!others.has(entry)) continue
    const circle = [...others].filter((other) => reach.get(other)?.has(entry)).sort()
    found.set(circle.join(' '), circle)
  }
  return [...found.values()]
}

let count = 0
const imports = [...RUST.flatMap(rustImports), ...TYPESCRIPT.flatMap(typescriptImports)]
for (const [folder, graph] of graphs(imports)) {
  for (const circle of circles(graph)) {
    count++
    process.stdout.write(`circle in ${folder}: ${circle.join(', ')}\n`)
    for (const entry of circle) {
      for (const [other, edges] of graph.get(entry)) {
        if (circle.includes(other)) {
          for (const edge of new Set(edges)) process.stdout.write(`  ${edge}\n`)
        }
      }
    }
  }
}
process.stdout.write(`${new Set(imports.flat()).size} files, ${count} circles\n`)
process.exitCode = count > 0 ? 1 : 0
