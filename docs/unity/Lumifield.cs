// Loads files of `lumifield export mesh`, `lumifield export volume` and `lumifield render --depth-format bytes`.
//
// World coordinates are right-handed, with z up in Blender scenes; Unity is left-handed with y up. Swapping y and z
// converts both. It mirrors space, so that the order of the corners of triangles is reversed.

using System;
using System.IO;
using System.Text;
using UnityEngine;
using UnityEngine.Rendering;

public static class Lumifield
{
    /// <summary>Converts a vector from world coordinates to Unity's axes.</summary>
    public static Vector3 ToUnity(float x, float y, float z)
    {
        return new Vector3(x, z, y);
    }

    /// <summary>Loads a .ply file of `export mesh`: vertices with normals and colors, and triangles.</summary>
    public static Mesh LoadMesh(string path)
    {
        using (var reader = new BinaryReader(File.OpenRead(path)))
        {
            int vertexCount = 0, faceCount = 0;
            bool hasNormals = false, hasAlpha = false, hasColors = false;
            for (string line = ReadLine(reader); line != "end_header"; line = ReadLine(reader))
            {
                if (line.StartsWith("element vertex ")) vertexCount = int.Parse(line.Substring(15));
                if (line.StartsWith("element face ")) faceCount = int.Parse(line.Substring(13));
                hasNormals |= line.EndsWith(" nx");
                hasColors |= line.EndsWith(" red");
                hasAlpha |= line.EndsWith(" alpha");
            }
            var vertices = new Vector3[vertexCount];
            var normals = new Vector3[hasNormals ? vertexCount : 0];
            var colors = new Color32[hasColors ? vertexCount : 0];
            for (int i = 0; i < vertexCount; i++)
            {
                vertices[i] = ReadVector(reader);
                if (hasNormals) normals[i] = ReadVector(reader);
                if (hasColors)
                {
                    byte r = reader.ReadByte(), g = reader.ReadByte(), b = reader.ReadByte();
                    colors[i] = new Color32(r, g, b, hasAlpha ? reader.ReadByte() : (byte)255);
                }
            }
            var triangles = new int[3 * faceCount];
            for (int i = 0; i < faceCount; i++)
            {
                reader.ReadByte(); // number of corners: 3
                triangles[3 * i] = reader.ReadInt32();
                triangles[3 * i + 2] = reader.ReadInt32();
                triangles[3 * i + 1] = reader.ReadInt32();
            }
            var mesh = new Mesh { indexFormat = IndexFormat.UInt32, vertices = vertices, triangles = triangles };
            if (hasColors) mesh.colors32 = colors;
            if (hasNormals) mesh.normals = normals; else mesh.RecalculateNormals();
            return mesh;
        }
    }

    /// <summary>Metadata of a volume: cells along each edge, lower and upper corner in world coordinates.</summary>
    [Serializable]
    public class Cube
    {
        public string file;
        public int cells;
        public float[] low;
        public float[] high;

        public static Cube Load(string json)
        {
            return JsonUtility.FromJson<Cube>(File.ReadAllText(json));
        }

        /// <summary>Moves a transform with Unity's built-in cube mesh to the position of the volume.</summary>
        public void Place(Transform transform)
        {
            Vector3 a = ToUnity(low[0], low[1], low[2]), b = ToUnity(high[0], high[1], high[2]);
            transform.localPosition = (a + b) / 2;
            transform.localScale = b - a;
        }
    }

    /// <summary>Loads a .vol or .raw file of `export volume` with premultiplied colors, in Unity's axes.</summary>
    public static Texture3D LoadVolume(string path)
    {
        int n = Cube.Load(Path.ChangeExtension(path, ".json")).cells;
        var texture = new Texture3D(n, n, n, TextureFormat.RGBA32, false) { wrapMode = TextureWrapMode.Clamp };
        var cells = texture.GetPixelData<Color32>(0);
        using (var reader = new BinaryReader(File.OpenRead(path)))
        {
            if (path.EndsWith(".raw"))
            {
                // R, G, B, A of every cell; x varies fastest, then y, then z.
                for (int z = 0; z < n; z++)
                {
                    byte[] layer = reader.ReadBytes(4 * n * n);
                    for (int y = 0; y < n; y++)
                        for (int x = 0; x < n; x++)
                        {
                            int i = 4 * (y * n + x);
                            cells[(y * n + z) * n + x] = Premultiply(layer[i], layer[i + 1], layer[i + 2], layer[i + 3]);
                        }
                }
            }
            else
            {
                for (int i = 0; i < cells.Length; i++) cells[i] = new Color32(0, 0, 0, 0);
                for (long remaining = reader.BaseStream.Length / 8; remaining > 0; remaining--)
                {
                    // The index is (y n + x) n + z.
                    uint i = reader.ReadUInt32(), c = reader.ReadUInt32();
                    int z = (int)(i % n), x = (int)(i / n % n), y = (int)(i / n / n);
                    cells[(y * n + z) * n + x] = Premultiply((byte)(c >> 24), (byte)(c >> 16), (byte)(c >> 8), (byte)c);
                }
            }
        }
        texture.Apply(false, true);
        return texture;
    }

    /// <summary>Loads a PNG file of `render`.</summary>
    public static Texture2D LoadImage(string path)
    {
        var texture = new Texture2D(2, 2, TextureFormat.RGBA32, false);
        texture.LoadImage(File.ReadAllBytes(path));
        return texture;
    }

    /// <summary>
    /// Loads distances of `render --depth-format bytes` as depths along the optical axis in world units, 0 without
    /// measurement. `focal` and `center` are in pixels from the top left.
    /// </summary>
    public static Texture2D LoadDepth(string path, int width, int height, Vector2 focal, Vector2 center)
    {
        byte[] bytes = File.ReadAllBytes(path);
        var distance = new float[width * height];
        Buffer.BlockCopy(bytes, 0, distance, 0, bytes.Length);
        var depth = new float[width * height];
        for (int row = 0; row < height; row++)
            for (int column = 0; column < width; column++)
            {
                float x = (column + 0.5f - center.x) / focal.x, y = (row + 0.5f - center.y) / focal.y;
                // Files start with the top row, textures with the bottom row.
                depth[(height - 1 - row) * width + column] =
                    distance[row * width + column] / Mathf.Sqrt(x * x + y * y + 1);
            }
        var texture = new Texture2D(width, height, TextureFormat.RFloat, false) { filterMode = FilterMode.Point };
        texture.SetPixelData(depth, 0);
        texture.Apply(false, true);
        return texture;
    }

    static Color32 Premultiply(byte r, byte g, byte b, byte a)
    {
        return new Color32((byte)(r * a / 255), (byte)(g * a / 255), (byte)(b * a / 255), a);
    }

    static Vector3 ReadVector(BinaryReader reader)
    {
        float x = reader.ReadSingle(), y = reader.ReadSingle(), z = reader.ReadSingle();
        return ToUnity(x, y, z);
    }

    static string ReadLine(BinaryReader reader)
    {
        var line = new StringBuilder();
        for (byte c = reader.ReadByte(); c != '\n'; c = reader.ReadByte()) line.Append((char)c);
        return line.ToString();
    }
}
