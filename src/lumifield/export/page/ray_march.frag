#version 300 es
precision highp float;
precision highp int;
precision highp sampler3D;
precision highp usampler3D;

// Bricks of voxels are packed in four atlases. `brickIndex` holds for each brick of space its position in them
// (alpha 0), or its distance to the nearest occupied brick (alpha above 0).
uniform usampler3D brickIndex;
uniform sampler3D valueAlpha, derivativeX, derivativeY, derivativeZ;
uniform vec3 box[2];
uniform float resolution, stepSize, coneAngle, near, far;
uniform bool isContracted, isNdc;
uniform vec3 ndc;  // 2 fx / width, 2 fy / height, distance of the near plane
uniform vec3 background;
uniform mat3 rotation;
uniform vec3 position;
uniform vec2 focal, center;
uniform float height;
out vec4 color;

const float BRICK_SIZE = 8.0, MAX_ALPHA = 254.0 / 255.0, MIN_TRANSMITTANCE = 0.004;
const int MAX_STEPS = 4000;

// Coordinates in voxels; `isContracted`: space outside the box is contracted into it (mip-NeRF 360, equation 10).
vec3 toVoxels(vec3 p) {
  vec3 q = (p - box[0]) / (box[1] - box[0]);
  if (isContracted) {
    q = q * 2.0 - 1.0;
    float size = max(1.0, max(abs(q.x), max(abs(q.y), abs(q.z))));
    q = q * ((2.0 - 1.0 / size) / size) / 4.0 + 0.5;
  }
  return q * resolution;
}

// Size of the voxel at p.
float voxelSize(vec3 p) {
  vec3 extent = box[1] - box[0];
  float uniformSize = pow(extent.x * extent.y * extent.z, 1.0 / 3.0) / resolution;
  if (!isContracted) return uniformSize;
  vec3 q = abs((p - box[0]) / extent * 2.0 - 1.0);
  float size = max(1.0, max(q.x, max(q.y, q.z)));
  return 2.0 * uniformSize / pow((2.0 - 1.0 / size) / (size * size), 2.0 / 3.0);
}

// Transforms a ray to normalized device coordinates (NeRF, appendix C); false if it points backward.
bool warpToNdc(inout vec3 o, inout vec3 d) {
  o = o * vec3(1, -1, -1);
  d = d * vec3(1, -1, -1);
  if (d.z >= 0.0) return false;
  o -= (ndc.z + o.z) / d.z * d;
  vec3 warped = vec3(-ndc.xy * o.xy / o.z, 1.0 + 2.0 * ndc.z / o.z);
  d = vec3(-ndc.xy * (d.xy / d.z - o.xy / o.z), 1.0 - warped.z);
  o = warped;
  return true;
}

// Distance in t at which the ray leaves the empty cube of bricks around its own brick.
float emptyDistance(vec3 voxel, vec3 velocity, ivec3 brick, int numEmpty) {
  vec3 low = vec3(brick - (numEmpty - 1)) * BRICK_SIZE, high = vec3(brick + numEmpty) * BRICK_SIZE;
  vec3 exits = (mix(low, high, greaterThan(velocity, vec3(0))) - voxel) / velocity;
  return min(exits.x, min(exits.y, exits.z));
}

// Composited color and remaining transmittance along a ray between two values of t.
vec4 march(vec3 o, vec3 d, vec3 viewDirection, float tMin, float tMax) {
  vec3 rgb = vec3(0);
  float transmittance = 1.0, t = tMin;
  vec3 texelScale = vec3(BRICK_SIZE + 1.0) / vec3(textureSize(valueAlpha, 0));
  vec3 velocity = toVoxels(o + d) - toVoxels(o);
  for (int i = 0; i < MAX_STEPS && t < tMax && transmittance > MIN_TRANSMITTANCE; i++) {
    float dt = max(stepSize, coneAngle * t) / (isNdc ? length(d) : 1.0);
    vec3 p = o + (t + 0.5 * dt) * d;
    vec3 voxel = toVoxels(p);
    ivec3 brick = ivec3(clamp(voxel, vec3(0), vec3(resolution - 1e-3)) / BRICK_SIZE);
    uvec4 entry = texelFetch(brickIndex, brick, 0);
    if (entry.a > 0u) {
      if (isContracted) velocity = (toVoxels(p + dt * d) - voxel) / dt;
      // The ray is curved in contracted space: skip half of the distance along its tangent.
      float skip = emptyDistance(voxel, velocity + 1e-9, brick, int(entry.a)) * (isContracted ? 0.5 : 1.0);
      t += dt * max(1.0, ceil(skip / dt));
      continue;
    }
    vec3 uvw = (vec3(entry.xyz) + (voxel - vec3(brick) * BRICK_SIZE + 0.5) / (BRICK_SIZE + 1.0)) * texelScale;
    vec4 texel = texture(valueAlpha, uvw);
    if (texel.a > 0.0) {
      float opticalDepth = -log(1.0 - min(texel.a, MAX_ALPHA)) * dt * length(d) / voxelSize(p);
      float weight = transmittance * (1.0 - exp(-opticalDepth));
      vec3 value = (texel.rgb * 255.0 - 64.0) / 128.0;
      vec3 derivative = viewDirection.x * texture(derivativeX, uvw).rgb
        + viewDirection.y * texture(derivativeY, uvw).rgb + viewDirection.z * texture(derivativeZ, uvw).rgb;
      float bias = 128.0 * (viewDirection.x + viewDirection.y + viewDirection.z);
      rgb += weight * (value + (derivative * 255.0 - bias) / 256.0);
      transmittance *= exp(-opticalDepth);
    }
    t += dt;
  }
  return vec4(rgb, transmittance);
}

void main() {
  vec2 pixel = vec2(gl_FragCoord.x, height - gl_FragCoord.y);
  vec3 viewDirection = normalize(rotation * vec3((pixel - center) / focal, 1.0));
  vec3 o = position, d = viewDirection;
  float tMin = near, tMax = far;
  bool isVisible = !isNdc || warpToNdc(o, d);
  if (isNdc) { tMin = 0.0; tMax = 1.0; }
  if (!isContracted) {
    vec3 a = (box[0] - o) / (d + 1e-9), b = (box[1] - o) / (d + 1e-9);
    vec3 low = min(a, b), high = max(a, b);
    tMin = max(tMin, max(low.x, max(low.y, low.z)));
    tMax = min(tMax, min(high.x, min(high.y, high.z)));
  }
  vec4 result = isVisible ? march(o, d, viewDirection, tMin, tMax) : vec4(0, 0, 0, 1);
  color = vec4(result.rgb + result.a * background, 1);
}
