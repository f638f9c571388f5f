// Loads what `lumifield export mesh`, `lumifield export volume` and `lumifield render --depth-format bytes` write.
//
// The world of the photographs is right-handed, and Blender's has z up; Unity is left-handed with y up. Exchanging y and
// z does both. It mirrors space, so that triangles turn round.

using System;
using System.IO;
using System.Text;
using UnityEngine;
using UnityEngine.Rendering;

public static class Lumifield
{
    /// <summary>A vector of the world in Unity's axes.</summary>
    public static Vector3 ToUnity(float x, float y, float z)
    {
        return new Vector3(x, z, y);
    }

    /// <summary>A .ply of `export mesh`: places, normals and colors of the vertices, and triangles.</summary>
    public static Mesh LoadMesh(string path)
    {
        using (var reader = new BinaryReader(File.OpenRead(path)))
        {
            int vertices = 0, faces = 0;
            bool normals = false, alpha = false, colors = false;
            for (string line = ReadLine(reader); line != "end_header"; line = ReadLine(reader))
            {
                if (line.StartsWith("element vertex ")) vertices = int.Parse(line.Substring(15));
                if (line.StartsWith("element face ")) faces = int.Parse(line.Substring(13));
                normals |= line.EndsWith(" nx");
                colors |= line.EndsWith(" red");
                alpha |= line.EndsWith(" alpha");
            }
            var place = new Vector3[vertices];
            var normal = new Vector3[normals ? vertices : 0];
            var color = new Color32[colors ? vertices : 0];
            for (int i = 0; i < vertices; i++)
            {
                place[i] = ReadVector(reader);
                if (normals) normal[i] = ReadVector(reader);
                if (colors)
                {
                    byte r = reader.ReadByte(), g = reader.ReadByte(), b = reader.ReadByte();
                    color[i] = new Color32(r, g, b, alpha ? reader.ReadByte() : (byte)255);
                }
            }
            var triangles = new int[3 * faces];
            for (int i = 0; i < faces; i++)
            {
                reader.ReadByte(); // three corners
                triangles[3 * i] = reader.ReadInt32();
                triangles[3 * i + 2] = reader.ReadInt32();
                triangles[3 * i + 1] = reader.ReadInt32();
            }
            var mesh = new Mesh { indexFormat = IndexFormat.UInt32, vertices = place, triangles = triangles };
            if (colors) mesh.colors32 = color;
            if (normals) mesh.normals = normal; else mesh.RecalculateNormals();
            return mesh;
        }
    }

    /// <summary>What the .json beside a volume says: cells along each side, lower and upper corner in the world.</summary>
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

        /// <summary>Puts a transform whose mesh is Unity's own cube where the volume lies.</summary>
        public void Place(Transform transform)
        {
            Vector3 a = ToUnity(low[0], low[1], low[2]), b = ToUnity(high[0], high[1], high[2]);
            transform.localPosition = (a + b) / 2;
            transform.localScale = b - a;
        }
    }

    /// <summary>A .vol or .raw of `export volume`, in Unity's axes, colors multiplied by alpha.</summary>
    public static Texture3D LoadVolume(string path)
    {
        int n = Cube.Load(Path.ChangeExtension(path, ".json")).cells;
        var texture = new Texture3D(n, n, n, TextureFormat.RGBA32, false) { wrapMode = TextureWrapMode.Clamp };
        var cells = texture.GetPixelData<Color32>(0);
        using (var reader = new BinaryReader(File.OpenRead(path)))
        {
            if (path.EndsWith(".raw"))
            {
                // R, G, B, A of every cell; x runs fastest, then y, then z.
                for (int z = 0; z < n; z++)
                {
                    byte[] layer = reader.ReadBytes(4 * n * n);
                    for (int y = 0; y < n; y++)
                        for (int x = 0; x < n; x++)
                        {
                            int i = 4 * (y * n + x);
                            cells[(y * n + z) * n + x] = Cell(layer[i], layer[i + 1], layer[i + 2], layer[i + 3]);
                        }
                }
            }
            else
            {
                for (int i = 0; i < cells.Length; i++) cells[i] = new Color32(0, 0, 0, 0);
                for (long left = reader.BaseStream.Length / 8; left > 0; left--)
                {
                    // The index is (y n + x) n + z.
                    uint i = reader.ReadUInt32(), c = reader.ReadUInt32();
                    int z = (int)(i % n), x = (int)(i / n % n), y = (int)(i / n / n);
                    cells[(y * n + z) * n + x] = Cell((byte)(c >> 24), (byte)(c >> 16), (byte)(c >> 8), (byte)c);
                }
            }
        }
        texture.Apply(false, true);
        return texture;
    }

    /// <summary>A PNG of `render`.</summary>
    public static Texture2D LoadImage(string path)
    {
        var texture = new Texture2D(2, 2, TextureFormat.RGBA32, false);
        texture.LoadImage(File.ReadAllBytes(path));
        return texture;
    }

    /// <summary>
    /// The distances beside a PNG of `render --depth-format bytes`, as depths along the optical axis in world units; 0
    /// where there is no measurement. `focal` and `center` are in pixels, from the top left.
    /// </summary>
    public static Texture2D LoadDepth(string path, int width, int height, Vector2 focal, Vector2 center)
    {
        byte[] bytes = File.ReadAllBytes(path);
        var depth = new float[width * height];
        Buffer.BlockCopy(bytes, 0, depth, 0, bytes.Length);
        var flipped = new float[width * height];
        for (int row = 0; row < height; row++)
            for (int column = 0; column < width; column++)
            {
                float x = (column + 0.5f - center.x) / focal.x, y = (row + 0.5f - center.y) / focal.y;
                // Files begin with the top row, textures with the bottom row.
                flipped[(height - 1 - row) * width + column] =
                    depth[row * width + column] / Mathf.Sqrt(x * x + y * y + 1);
            }
        var texture = new Texture2D(width, height, TextureFormat.RFloat, false) { filterMode = FilterMode.Point };
        texture.SetPixelData(flipped, 0);
        texture.Apply(false, true);
        return texture;
    }

    static Color32 Cell(byte r, byte g, byte b, byte a)
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
