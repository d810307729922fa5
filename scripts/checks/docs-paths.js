/**
 * Checks that every path named in the Markdown files exists: relative links, and code spans that
 * start with a folder at the root. Expands `{a,b}` and `*`; skips code spans with a placeholder
 * (<...>).
 */
const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..', '..')
const FOLDERS = [
  'src/',
  'crates/',
  'scripts/',
  'docs/',
  '__test__/',
  'assets/',
  'npm/',
  '.ci/',
  '.github/',
]

/** Expands braces: a/{b,c}.rs becomes a/b.rs and a/c.rs. */
function expand(pattern) {
  const found = /^(.*?)\{([^{}]*)\}(.*)$/.exec(pattern)
  return found
    ? found[2].split(',').flatMap((part) => expand(found[1] + part.trim() + found[3]))
    : [pattern]
}

function exists(pattern, known) {
  if (!pattern.includes('*')) return fs.existsSync(path.join(root, pattern))
  const regex = pattern
    .split('*')
    .map((part) => part.replace(/[.+?^$()|[\]\\]/g, '\\$&'))
    .join('[^/]*')
  return known.some((file) => new RegExp(`^${regex}`).test(file))
}

function namedPaths(text) {
  const spans = [...text.matchAll(/`([^`\n]+)`/g)].map((found) => found[1])
  const inProject = spans.filter(
    (span) => !/[<>\s$]/.test(span) && FOLDERS.some((folder) => span.startsWith(folder)),
  )
  const links = [...text.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)].map((found) => found[1])
  return { spans: inProject, links: links.filter((link) => !/^[a-z]+:/.test(link)) }
}

const files = execFileSync(
  'git',
  ['-c', 'safe.directory=*', 'ls-files', '--cached', '--others', '--exclude-standard'],
  {
    cwd: root,
    encoding: 'utf8',
  },
)
const known = files.split('\n').filter(Boolean)
const missing = []
let named = 0
for (const document of known.filter(
  (file) => file.endsWith('.md') && fs.existsSync(path.join(root, file)),
)) {
  const { spans, links } = namedPaths(fs.readFileSync(path.join(root, document), 'utf8'))
  const paths = [
    ...spans,
    ...links.map((link) => path.posix.join(path.posix.dirname(document), link)),
  ]
  for (const name of paths.flatMap(expand)) {
    named++
    if (!exists(name.replace(/:\d+$/, ''), known))
      missing.push(`${document} names ${name}, which does not exist`)
  }
}
process.stdout.write(missing.length > 0 ? `${missing.join('\n')}\n` : `${named} paths exist\n`)
process.exitCode = missing.length > 0 ? 1 : 0
