// Draws the ring. The outer band shows every ring entry at its position, the inner band the total share of each member.

import { svg, html, percent, count } from "./dom.js";

const size = 360, centre = size / 2;
const outer = 160, inner = 124;
const colours = 8;

// A member keeps its number and colour as long as the page is open, even when others join or leave.
const numbers = new Map(); // :: node id → number from 1

function numberOf(id) {
  if (!numbers.has(id)) numbers.set(id, numbers.size + 1);
  return numbers.get(id);
}

const colourClass = id => "m" + (numberOf(id) - 1) % colours;
export const badge = id => html("span", { class: "badge " + colourClass(id), "aria-hidden": "true" }, String(numberOf(id)));

function at(radius, turn) {
  const angle = turn * 2 * Math.PI;
  return [centre + radius * Math.sin(angle), centre - radius * Math.cos(angle)].map(v => v.toFixed(2));
}

function arc(radius, from, to) {
  const large = to - from > 0.5 ? 1 : 0;
  return `M${at(radius, from)}A${radius} ${radius} 0 ${large} 1 ${at(radius, Math.min(to, from + 0.9999))}`;
}

// bands returns each member's part of the outer band as one path. Adjacent entries of one member form one arc.
function bands(points, members) {
  const paths = Array.from({ length: members }, () => []);
  const add = (from, to, owner) => { if (to > from) paths[owner].push(arc(outer, from, to)); };
  let from = 0;
  points.forEach(([position, owner], i) => {
    const next = points[i + 1];
    if (next && next[1] === owner) return;
    add(from, position, owner);
    from = position;
  });
  if (points.length) add(from, 1, points[0][1]); // the ring is circular
  return paths.map(arcs => arcs.join(""));
}

function shareRing(members) {
  const gap = members.length > 1 && members.length < 100 ? 0.004 : 0;
  let from = 0;
  return members.map(member => {
    const to = from + member.share;
    const middle = (from + to) / 2;
    const group = svg("g", { class: colourClass(member.id), "data-member": member.id });
    if (member.share > gap) group.append(svg("path", { class: "arc", "stroke-width": 20, d: arc(inner, from + gap / 2, to - gap / 2) }));
    if (member.share > 0.03) {
      const [x, y] = at(inner, middle);
      group.append(svg("text", { class: "badge-text", x, y, "text-anchor": "middle", "dominant-baseline": "central" }, String(numberOf(member.id))));
    }
    group.append(svg("title", {}, `${member.id} owns ${percent(member.share)}`));
    from = to;
    return group;
  });
}

function needle(position) {
  const [[x1, y1], [x2, y2], [x, y]] = [at(inner + 14, position), at(outer + 12, position), at(outer + 13, position)];
  return svg("g", {}, svg("line", { class: "needle", x1, y1, x2, y2 }), svg("circle", { class: "needle-dot", cx: x, cy: y, r: 4.5 }));
}

// drawRing draws view (from /api/ring) into element and, if given, the key explained (from /api/explain).
export function drawRing(element, view, explained) {
  const members = view.members;
  const label = `${members.length} members: ` + members.slice(0, 12).map(m => `${m.id} owns ${percent(m.share)}`).join(", ");
  const root = svg("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": label });
  bands(view.points, members.length).forEach((d, i) =>
    root.append(svg("g", { class: colourClass(members[i].id), "data-member": members[i].id }, svg("path", { class: "arc", "stroke-width": 15, d }))));
  root.append(...shareRing(members));
  const text = (cls, y, words) => svg("text", { class: cls, x: centre, y, "text-anchor": "middle" }, words);
  root.append(
    text("centre-big", centre + 2, count(members.length)),
    text("centre-small", centre + 22, members.length === 1 ? "member" : "members"),
    text("centre-small", centre + 40, count(view.entries) + " ring entries"));
  if (explained) {
    root.append(needle(explained.position));
    for (const group of root.querySelectorAll("[data-member]")) {
      group.classList.toggle("dim", group.dataset.member !== explained.owner);
    }
  }
  element.replaceChildren(root);
}

// drawShares lists the members of view with their shares, and with their role for the explained key.
export function drawShares(element, view, explained) {
  element.replaceChildren(...view.members.map(member => {
    const next = explained ? explained.successors.indexOf(member.id) : -1;
    let role = member.id === view.self ? "this sidecar" : "";
    if (next >= 0) role = next === 0 ? "successor" : "successor " + (next + 1);
    if (explained && explained.owner === member.id) role = "owns the key";
    return html("li", { class: explained && explained.owner !== member.id && next < 0 ? "dim" : "" },
      badge(member.id), html("span", { class: "name" }, member.id), html("span", { class: "role" }, role), html("span", {}, percent(member.share)));
  }));
}
