/**
 * Checks the built site: every link leads to a page, every anchor to an element, and no page loads
 * anything from elsewhere.
 */
const fs = require('node:fs')
const path = require('node:path')

/** Returns the attributes `name` of an HTML text, decoded. */
function attributes(html, name) {
  return [...html.matchAll(new RegExp(`\\s${name}="([^"]*)"`, 'g'))].map((found) =>
    found[1].replaceAll('&amp;', '&'),
  )
}

/** Returns the URLs that a page loads by itself. */
function loadedBy(html) {
  const tags = html.match(/<(?:script|link|img|source|iframe|video|audio)\s[^>]*>/g) ?? []
  return tags.flatMap((tag) => [...attributes(tag, 'src'), ...attributes(tag, 'href')])
}

/** Returns the problems of the site in `folder`, and how many links were followed. */
function checkSite(folder) {
  const problems = []
  let links = 0
  const files = fs.readdirSync(folder, { recursive: true }).map((f) => f.split(path.sep).join('/'))
  const pages = new Map(
    files
      .filter((file) => file.endsWith('.html'))
      .map((file) => [file, fs.readFileSync(path.join(folder, file), 'utf8')]),
  )
  const known = new Set(files)
  const ids = new Map([...pages].map(([file, html]) => [file, new Set(attributes(html, 'id'))]))
  for (const [file, html] of pages) {
    for (const url of loadedBy(html)) {
      if (/^(https?:)?\/\//.test(url)) problems.push(`${file} loads ${url}`)
    }
    for (const url of [...attributes(html, 'href'), ...attributes(html, 'src')]) {
      if (/^([a-z]+:|\/\/)/.test(url)) continue
      links++
      const { pathname, hash } = new URL(url, `http://site/${file}`)
      const place = decodeURIComponent(pathname).slice(1)
      const found = [place, `${place}.html`, path.posix.join(place, 'index.html')].find(
        (name) => known.has(name) && name !== '' && !name.endsWith('/'),
      )
      const anchor = decodeURIComponent(hash.slice(1))
      if (found === undefined) problems.push(`${file} links to ${url}, which does not exist`)
      else if (anchor !== '' && ids.has(found) && !ids.get(found).has(anchor)) {
        problems.push(`${file} links to ${url}: no such anchor`)
      }
    }
  }
  return { problems: [...new Set(problems)], links, pages: pages.size }
}

module.exports = { checkSite }
