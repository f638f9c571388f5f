#version 300 es
precision highp float;
precision highp int;
precision highp sampler3D;
precision highp usampler3D;

// Bricks of voxels lie side by side in four atlases. `index` says for each brick of space where in them it is
// (alpha 0), or how many bricks away the nearest matter is (alpha above 0).
uniform usampler3D index;
uniform sampler3D matter, slopeX, slopeY, slopeZ;
uniform vec3 box[2];
uniform float side, step0, cone, near, far;
uniform bool contracted, warped;
uniform vec3 ndc;  // 2 fx / width, 2 fy / height, distance of the near plane
uniform vec3 background;
uniform mat3 rotation;
uniform vec3 position;
uniform vec2 focal, center;
uniform float height;
out vec4 color;

const float BRICK = 8.0, OPAQUE = 254.0 / 255.0, LEFT = 0.004;
const int MOST = 4000;

// Coordinates in voxels; beyond the box all space is folded in where `contracted` (mip-NeRF 360, equation 10).
vec3 inVoxels(vec3 p) {
  vec3 q = (p - box[0]) / (box[1] - box[0]);
  if (contracted) {
    q = q * 2.0 - 1.0;
    float size = max(1.0, max(abs(q.x), max(abs(q.y), abs(q.z))));
    q = q * ((2.0 - 1.0 / size) / size) / 4.0 + 0.5;
  }
  return q * side;
}

// The side of a voxel about p.
float voxel(vec3 p) {
  vec3 span = box[1] - box[0];
  float even = pow(span.x * span.y * span.z, 1.0 / 3.0) / side;
  if (!contracted) return even;
  vec3 q = abs((p - box[0]) / span * 2.0 - 1.0);
  float size = max(1.0, max(q.x, max(q.y, q.z)));
  return 2.0 * even / pow((2.0 - 1.0 / size) / (size * size), 2.0 / 3.0);
}

// A ray in normalized device coordinates (NeRF, appendix C); false where it looks backwards.
bool warp(inout vec3 o, inout vec3 d) {
  o = o * vec3(1, -1, -1);
  d = d * vec3(1, -1, -1);
  if (d.z >= 0.0) return false;
  o -= (ndc.z + o.z) / d.z * d;
  vec3 to = vec3(-ndc.xy * o.xy / o.z, 1.0 + 2.0 * ndc.z / o.z);
  d = vec3(-ndc.xy * (d.xy / d.z - o.xy / o.z), 1.0 - to.z);
  o = to;
  return true;
}

// How far the ray is from leaving the cube of bricks about its own in which there is no matter.
float leap(vec3 at, vec3 slope, ivec3 brick, int empty) {
  vec3 low = vec3(brick - (empty - 1)) * BRICK, high = vec3(brick + empty) * BRICK;
  vec3 out3 = (mix(low, high, greaterThan(slope, vec3(0))) - at) / slope;
  return min(out3.x, min(out3.y, out3.z));
}

vec4 traced(vec3 o, vec3 d, vec3 seen, float first, float last) {
  vec3 total = vec3(0);
  float left = 1.0, t = first;
  vec3 scale = vec3(BRICK + 1.0) / vec3(textureSize(matter, 0));
  vec3 slope = inVoxels(o + d) - inVoxels(o);
  for (int i = 0; i < MOST && t < last && left > LEFT; i++) {
    float width = max(step0, cone * t) / (warped ? length(d) : 1.0);
    vec3 p = o + (t + 0.5 * width) * d;
    vec3 at = inVoxels(p);
    ivec3 brick = ivec3(clamp(at, vec3(0), vec3(side - 1e-3)) / BRICK);
    uvec4 entry = texelFetch(index, brick, 0);
    if (entry.a > 0u) {
      if (contracted) slope = (inVoxels(p + width * d) - at) / width;
      // In folded space the ray bends: it leaps half of the way that its tangent would go.
      float free = leap(at, slope + 1e-9, brick, int(entry.a)) * (contracted ? 0.5 : 1.0);
      t += width * max(1.0, ceil(free / width));
      continue;
    }
    vec3 where = (vec3(entry.xyz) + (at - vec3(brick) * BRICK + 0.5) / (BRICK + 1.0)) * scale;
    vec4 here = texture(matter, where);
    if (here.a > 0.0) {
      float thickness = -log(1.0 - min(here.a, OPAQUE)) * width * length(d) / voxel(p);
      float weight = left * (1.0 - exp(-thickness));
      vec3 value = (here.rgb * 255.0 - 64.0) / 128.0;
      vec3 slopes = seen.x * texture(slopeX, where).rgb + seen.y * texture(slopeY, where).rgb
        + seen.z * texture(slopeZ, where).rgb;
      total += weight * (value + (slopes * 255.0 - 128.0 * (seen.x + seen.y + seen.z)) / 256.0);
      left *= exp(-thickness);
    }
    t += width;
  }
  return vec4(total, left);
}

void main() {
  vec2 pixel = vec2(gl_FragCoord.x, height - gl_FragCoord.y);
  vec3 seen = normalize(rotation * vec3((pixel - center) / focal, 1.0));
  vec3 o = position, d = seen;
  float first = near, last = far;
  bool forward = !warped || warp(o, d);
  if (warped) { first = 0.0; last = 1.0; }
  if (!contracted) {
    vec3 a = (box[0] - o) / (d + 1e-9), b = (box[1] - o) / (d + 1e-9);
    vec3 low = min(a, b), high = max(a, b);
    first = max(first, max(low.x, max(low.y, low.z)));
    last = min(last, min(high.x, min(high.y, high.z)));
  }
  vec4 light = forward ? traced(o, d, seen, first, last) : vec4(0, 0, 0, 1);
  color = vec4(light.rgb + light.a * background, 1);
}
