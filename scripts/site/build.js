/**
 * `npm run docs:build`: builds the documentation site into target/site/html and checks its links.
 * VitePress and typedoc are installed into target/site the first time.
 * Serve the site with `npm run docs:serve`.
 */
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { installTools } = require('../tools')
const { checkSite } = require('./links')
const { sidebarOf, writePages } = require('./pages')

const tools = path.join(__dirname, 'vitepress')
const site = path.join(__dirname, '..', '..', 'target', 'site')
const pages = path.join(site, 'pages')
const html = path.join(site, 'html')

/** Runs an installed program quietly; prints its output if it fails. */
function run(name, ...args) {
  const program = path.join(site, 'node_modules', '.bin', name)
  const { status, stdout, stderr } = spawnSync(program, args, { cwd: site, encoding: 'utf8' })
  if (status === 0) return
  process.stdout.write(`${stdout}${stderr}${name} failed\n`)
  process.exit(1)
}

function main() {
  installTools(tools, site)
  const settings = path.join(site, '.vitepress')
  for (const folder of [pages, html, settings]) fs.rmSync(folder, { recursive: true, force: true })
  fs.cpSync(path.join(tools, '.vitepress'), settings, { recursive: true })
  writePages(pages)
  // The reference, from the comments in src/; scripts/checks/api-docs.js checks that none is
  // missing.
  run(
    'typedoc',
    '--options',
    path.join(__dirname, 'typedoc.json'),
    '--plugin',
    'typedoc-plugin-markdown',
  )
  fs.writeFileSync(path.join(settings, 'sidebar.json'), JSON.stringify(sidebarOf(pages)))
  run('vitepress', 'build', '.')
  const { problems, links, pages: count } = checkSite(html)
  process.stdout.write(problems.map((problem) => `${problem}\n`).join(''))
  if (problems.length > 0) process.exitCode = 1
  else process.stdout.write(`${count} pages, ${links} links: ${path.relative('', html)}\n`)
}

main()
