// Renders a volume of Lumifield.LoadVolume on Unity's built-in cube (built-in render pipeline).
Shader "Lumifield/Volume"
{
    Properties
    {
        _Volume ("Volume", 3D) = "" {}
        _Steps ("Steps through the cube", Int) = 512
    }
    SubShader
    {
        Tags { "Queue" = "Transparent" }
        Cull Front
        ZWrite Off
        ZTest Always
        Blend One OneMinusSrcAlpha
        Pass
        {
            CGPROGRAM
            #pragma vertex vert
            #pragma fragment frag
            #include "UnityCG.cginc"

            sampler3D _Volume;
            float4 _Volume_TexelSize;
            int _Steps;

            struct v2f { float4 position : SV_POSITION; float3 local : TEXCOORD0; };

            v2f vert(float4 vertex : POSITION)
            {
                v2f o;
                o.position = UnityObjectToClipPos(vertex);
                o.local = vertex.xyz;
                return o;
            }

            fixed4 frag(v2f i) : SV_Target
            {
                // Back faces are rasterized, so that the camera may be inside: march from the entry point to the back face.
                float3 eye = mul(unity_WorldToObject, float4(_WorldSpaceCameraPos, 1)).xyz;
                float3 ray = normalize(i.local - eye);
                float3 enter = min((-0.5 - eye) / ray, (0.5 - eye) / ray);
                float tMin = max(max(max(enter.x, enter.y), enter.z), 0);
                float tMax = length(i.local - eye);
                float stepSize = 1.732 / _Steps;
                // The alpha of a texel is the opacity over its edge length.
                float texelsPerStep = stepSize / _Volume_TexelSize.x;
                float4 composite = 0;
                for (float t = tMin; t < tMax && composite.a < 0.99; t += stepSize)
                {
                    float4 cell = tex3Dlod(_Volume, float4(eye + t * ray + 0.5, 0));
                    float alpha = 1 - pow(max(1 - cell.a, 1e-4), texelsPerStep);
                    float3 rgb = cell.rgb / max(cell.a, 1e-4);
                    #ifndef UNITY_COLORSPACE_GAMMA
                    rgb = GammaToLinearSpace(rgb);
                    #endif
                    composite += (1 - composite.a) * alpha * float4(rgb, 1);
                }
                return composite;
            }
            ENDCG
        }
    }
}
