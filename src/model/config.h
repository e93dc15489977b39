// The numbers of a model, read from config.json and checked: nothing absurd gets further than this. What a family means by its
// keys is told by its reader in arch/; here is what readers share.
#pragma once
#include <string>
#include <vector>

#include "io/json.h"
#include "model/program.h"

namespace signround {

// A norm of q and k before they rotate: RMSNorm of each head, of the whole row, LayerNorm of each head.
enum class QkNorm : u8 { none, head, all, head_layer };

// By layer: which earlier keys a query sees, whether its positions rotate, and whether its MLP is one of experts.
struct LayerConfig {
  i64 window = 0;  // 0: all of them
  bool rotates = true;
  bool sparse = false;
};

struct ExpertConfig {
  i64 count = 0, active = 0;     // of the active ones each token chooses so many
  i64 ffn = 0, shared_ffn = 0;   // of an expert; of the one that all tokens share, 0: none
  bool normalized = false;       // the weights of the chosen sum to 1
};

struct Config {
  std::string architecture;      // "LlamaForCausalLM"
  std::string base = "model.";  // of the names of tensors, in families that have models with other bases
  i64 hidden = 0, ffn = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, vocab = 0;
  i64 max_positions = 0;
  bool learned_positions = false;  // there is no going beyond max_positions
  float norm_eps = 0, norm_plus = 0;  // norm_plus: 1 where norms store w - 1
  Activation activation = Activation::silu;
  bool tied_head = false, qkv_bias = false, o_bias = false, mlp_bias = false;
  bool parallel = false;    // attention and MLP read the same input, and both are added to it
  bool two_norms = false;   // each through a norm of its own (Falcon)
  bool post_norm = false;   // norms behind the halves of a block instead of before (OPT)
  bool final_norm = true;   // one before the head (OPT)
  i64 word_dim = 0;         // of embeddings that a linear brings to `hidden`, another back from there (OPT); 0: hidden
  bool unit_head = false;   // rows of the head are divided by their length (Baichuan 2)
  bool transposed = false;  // the checkpoint holds linears as [in, out]
  QkNorm qk_norm = QkNorm::none;
  float embed_scale = 1;
  float attention_scale = 0;                       // 0: 1 / sqrt(head_dim)
  float attention_softcap = 0, logit_softcap = 0;  // 0: none
  bool alibi = false;                              // scores fall with the distance, positions do not rotate
  bool falcon_alibi = false;                       // in Falcon's way
  bool interleaved = false;                        // rotary pairs are neighbours
  ExpertConfig experts;
  RopeTable rope, local_rope;                      // local_rope: of layers with a window; empty: as the others
  std::vector<LayerConfig> layer;                  // by layer; empty: all as LayerConfig says
  DType dtype = DType::bf16;                       // of the weights, as the file claims; each tensor's own type decides

  LayerConfig layer_config(i64 index) const { return layer.empty() ? LayerConfig{} : layer[static_cast<size_t>(index)]; }
};

// Throws Error{bad_input} naming the key and its value, or the architecture if it is not supported.
Config read_config(const Json& json);

// Throws Error{usage} if a sequence of so many tokens has more positions than the model learned.
void check_length(const Config& c, i64 tokens);

// ---- for the readers of families

// What holds where the key of a size is absent: transformers' defaults for the class. 0: the key must be there.
struct Sizes {
  i64 vocab = 0, hidden = 0, ffn = 0, layers = 0, heads = 0;  // ffn 0: 4 times hidden
  i64 kv_heads = 0, head_dim = 0;                             // 0: as many as heads; hidden / heads. So they are where null
  i64 positions = 2048;
};

// What the keys of a decoder are called, and what holds where one is absent.
struct ConfigKeys {
  Sizes sizes{};
  const char *hidden = "hidden_size", *layers = "num_hidden_layers", *heads = "num_attention_heads";
  const char* ffn = "intermediate_size";         // null: there is none, it is 4 times hidden
  const char* kv_heads = "num_key_value_heads";  // null: as many as heads
  const char* positions = "max_position_embeddings";
  const char* norm_eps = "rms_norm_eps";
  double default_eps = 1e-6;
  const char* activation = "hidden_act";
  const char* default_activation = "silu";
  bool tied_head = false;
  bool rotates = true;
  const char* rope_theta = "rope_theta";
  double default_theta = 10000;
  const char* rotary_share = nullptr;  // of a head's dimensions, those that rotate; null: all
  double default_share = 1;
  i64 original_positions = 0;  // of the context before longrope stretched it; 0: as many as now
};

// Sizes, norm, activation, head and rotary positions. Throws as read_config.
void read_decoder(Config& c, const Json& json, const ConfigKeys& keys = {});

i64 in_range(const Json& json, const char* key, i64 low, i64 high, i64 fallback = -1);  // no fallback: the key must be there
double positive(const Json& json, const char* key, double fallback);
double positive_or_none(const Json& json, const char* key, double fallback);  // 0: the key is null
void refuse(const Json& json, const char* key);                               // if it is true

const char* present(const Json& json, const char* key, const char* other);  // key if it is there and not null, else other

// Layers with a window of so many positions (0: none at all): those that layer_types calls "sliding_attention", or else, where
// there is no such key, those that `windowed` names.
template <class F>
void read_windows(Config& c, const Json& json, i64 window, F windowed);
// How many experts there are, chosen of them, and their width under the key `ffn`; every layer has them. What is absent is as in
// `fallback`.
void read_experts(Config& c, const Json& json, const char* ffn, const ExpertConfig& fallback);
i64 read_window(const Json& json, i64 fallback);               // sliding_window: 0 where it is null, fallback where it is absent
std::vector<bool> read_sliding(const Json& json, i64 layers);  // of layer_types; empty: there is no such key

template <class F>
void read_windows(Config& c, const Json& json, i64 window, F windowed) {
  const std::vector<bool> sliding = read_sliding(json, c.layers);
  c.layer.resize(static_cast<size_t>(c.layers));
  for (i64 i = 0; i < c.layers; ++i)
    if (sliding.empty() ? windowed(i) : sliding[static_cast<size_t>(i)]) c.layer[static_cast<size_t>(i)].window = window;
}

const Json& object_or_empty(const Json& json, const char* key);

}  // namespace signround
