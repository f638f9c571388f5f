// Fills the view with a picture that hides, and is hidden by, other things where its depth says so (built-in render
// pipeline): on a quad before the camera whose field of view is that of the picture.
Shader "Lumifield/Picture with depth"
{
    Properties
    {
        _MainTex ("Picture", 2D) = "" {}
        _Depth ("Depth along the optical axis", 2D) = "" {}
        _Unit ("Unity units in a unit of the world", Float) = 1
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
                // The inverse of LinearEyeDepth.
                depth = (1 / eye - _ZBufferParams.w) / _ZBufferParams.z;
                return tex2D(_MainTex, i.uv);
            }
            ENDCG
        }
    }
}
