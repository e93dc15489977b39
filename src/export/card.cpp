#include "export/card.h"

#include "io/side_files.h"

namespace signround {
namespace {

std::string scheme_text(const QuantSpec& spec) {
  return cat(spec.bits, " bits, ", spec.symmetric ? "symmetric" : "with zero points", ", ",
             spec.group > 0 ? cat("a scale for each ", spec.group, " weights") : std::string("a scale for each row"),
             spec.two_levels() ? cat(", ", spec.scale_bits, " bits of one for each ", kSuperBlock) : "");
}

}  // namespace

std::string model_card(const Manifest& m, const std::vector<Verdict>& loaders, const Checkpoint& source) {
  std::string architecture = "a language model", licences;
  if (const Json* list = m.config.find("architectures"); list && !list->array().empty()) architecture = list->array()[0].string();
  for (const Path& file : licence_files(source.path())) licences += cat(licences.empty() ? "" : ", ", file.filename().string());
  const ExportScheme& s = m.scheme;
  std::string text = cat("# ", architecture, ", quantized\n\nBy SignRound (arXiv 2309.05516), with this command:\n\n```\n",
                         m.provenance.command, " --format ", m.format, "\n```\n\n| | |\n|---|---|\n");
  const auto row = [&](std::string_view key, const std::string& value) { text += cat("| ", key, " | ", value, " |\n"); };
  row("format", m.format);
  row("scheme", scheme_text(s.spec));
  if (!s.exceptions.empty()) {
    std::map<std::string, i64> grids;
    for (const auto& [name, spec] : s.exceptions) ++grids[scheme_text(spec)];
    std::string text_of_grids;
    for (const auto& [grid, count] : grids)
      text_of_grids += cat(text_of_grids.empty() ? "" : "; ", count, count == 1 ? " layer: " : " layers: ", grid);
    row("but", text_of_grids);
  }
  row("layers", cat(m.layers.size(), " quantized, ", s.skipped.size(), " left at 16 bits"));
  if (s.iters > 0) {
    row("tuning", cat(s.iters, " steps a block, ", s.nsamples, " samples of ", s.seqlen, " tokens, batches of ", s.batch_size));
    row("calibration", cat("token ids with the digest `", m.provenance.calibration, "`"));
    row("seed", cat(m.provenance.seed));
  } else {
    row("tuning", "none: rounded to nearest");
  }
  if (const std::optional<Perplexities>& p = m.provenance.perplexity)
    row("perplexity", cat(p->before, " before, ", p->after, " after, on ", p->tokens, " tokens of ", p->text));
  row("licence", licences.empty() ? "that of the original; it had no file of its own" : cat("that of the original: ", licences));
  text += "\n## Who can load it\n\n| engine | loads | rule |\n|---|---|---|\n";
  for (const Verdict& v : loaders) text += cat("| ", v.engine, " | ", v.loads ? "yes" : "no", " | ", v.rule, " |\n");
  return text + "\n`signround verify` compares every tensor with the digests in signround.json.\n";
}

}  // namespace signround
