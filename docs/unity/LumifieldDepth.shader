// Renders an image with depth, so that virtual objects occlude it and are occluded (built-in render pipeline), on a quad
// in front of a camera with the field of view of the image.
Shader "Lumifield/Image with depth"
{
    Properties
    {
        _MainTex ("Image", 2D) = "" {}
        _Depth ("Depth along the optical axis", 2D) = "" {}
        _Unit ("Unity units per world unit", Float) = 1
    }
    SubShader
    {
        ZTest LEqual
        ZWrite On
        Pass
        {
            CGPROGRAM
            #pragma vertex vert_img
            #pragma fragment frag
            #include "UnityCG.cginc"

            sampler2D _MainTex, _Depth;
            float _Unit;

            fixed4 frag(v2f_img i, out float depth : SV_Depth) : SV_Target
            {
                float eye = tex2D(_Depth, i.uv).r * _Unit;
                eye = eye > 0 ? eye : _ProjectionParams.z;
                // Inverse of LinearEyeDepth.
                depth = (1 / eye - _ZBufferParams.w) / _ZBufferParams.z;
                return tex2D(_MainTex, i.uv);
            }
            ENDCG
        }
    }
}
