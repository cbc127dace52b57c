// What a page owes to people who do not see it, or see it badly. The value: a list of sentences, empty for a good page.
(() => {
  const faults = [], shown = (one) => one.checkVisibility({ checkOpacity: false, checkVisibilityCSS: true });
  const where = (one) => `${one.tagName.toLowerCase()}${one.id && '#' + one.id}${one.className && typeof one.className === 'string' ? '.' + one.className : ''}`;
  const open = document.querySelector('dialog[open]') ?? document.body;

  const name = (one) => {
    const by = one.getAttribute('aria-labelledby')?.split(' ').map((id) => document.getElementById(id)?.textContent).join(' ');
    return (by || one.getAttribute('aria-label') || [...one.labels ?? []].map((label) => label.textContent).join(' ') ||
      one.textContent || one.alt || '').trim();
  };
  for (const one of open.querySelectorAll('button, input, select, textarea, a[href], [role=tab], dialog, [tabindex="0"]'))
    if (shown(one) && !name(one)) faults.push(`${where(one)} has no name`);
  for (const one of open.querySelectorAll('img')) if (!one.hasAttribute('alt')) faults.push(`${where(one)} has no alt`);
  for (const one of open.querySelectorAll('[aria-controls], [aria-labelledby], [aria-describedby]'))
    for (const kind of ['aria-controls', 'aria-labelledby', 'aria-describedby'])
      for (const id of (one.getAttribute(kind) ?? '').split(' ').filter(Boolean))
        if (!document.getElementById(id)) faults.push(`${where(one)}: ${kind} names nothing`);
  const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);
  for (const id of new Set(ids)) if (ids.filter((other) => other === id).length > 1) faults.push(`two elements are #${id}`);
  for (const one of open.querySelectorAll('button, input, select, a[href]')) {
    const box = one.getBoundingClientRect();
    if (shown(one) && box.width && !one.classList.contains('skip') && (box.width < 24 || box.height < 16)) faults.push(`${where(one)} is too small to hit: ${box.width}×${box.height}`);
  }
  if (!document.documentElement.lang) faults.push('the page has no language');
  if (document.querySelectorAll('main').length !== 1 || document.querySelectorAll('h1').length !== 1) faults.push('one main and one h1 are wanted');
  let level = 1;
  for (const one of document.querySelectorAll('main h2, main h3, main h4')) {
    const here = Number(one.tagName[1]);
    if (shown(one) && here > level + 1) faults.push(`${where(one)}: a heading level is left out`);
    if (shown(one)) level = here;
  }

  const pen = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const colour = (text) => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = text; pen.fillRect(0, 0, 1, 1); const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255]; };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
  const behind = (one) => {
    const layers = [];
    for (let up = one; up; up = up.parentElement) { const found = colour(getComputedStyle(up).backgroundColor); layers.unshift(found); if (found[3] === 1 || up.tagName === 'DIALOG') break; }
    return layers.reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
  };
  const seen = new Set();
  const walker = document.createTreeWalker(open, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const one = node.parentElement, style = getComputedStyle(one);
    if (!node.textContent.trim() || !shown(one) || one.closest(':disabled, .unseen, .skip, noscript, option, script') || seen.has(one)) continue;
    seen.add(one);
    let opacity = 1;
    for (let up = one; up; up = up.parentElement) opacity *= Number(getComputedStyle(up).opacity);
    const ground = behind(one), ink = colour(style.color), [high, low] = [over([...ink.slice(0, 3), ink[3] * opacity], ground), ground].map(light).sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05), size = parseFloat(style.fontSize), big = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (big ? 3 : 4.5)) faults.push(`${where(one)} “${node.textContent.trim().slice(0, 30)}”: contrast ${ratio.toFixed(2)}`);
  }
  for (const one of open.querySelectorAll('button svg')) {
    const host = one.parentElement;
    if (!shown(host) || host.disabled || one.closest('.talk')) continue;
    const [high, low] = [colour(getComputedStyle(host).color), behind(host)].map(light).sort((a, b) => b - a), ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 3) faults.push(`${where(host)}: its drawing has contrast ${ratio.toFixed(2)}`);
  }
  return faults;
})()
