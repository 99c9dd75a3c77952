//! scratch
use crate::peer::{Grant, Peer, Setup, on_every_peer};
use crate::simulated::Simulated;
use crate::site::Site;
#[test]
fn scratch() {
    let master = Simulated::start(&["--tasks", "30"]);
    on_every_peer(|peer: Peer| {
        let mut all=format!("== {peer:?}\n");
        let show=|title:&str, site:&Site| {
            let before=(site.peer.axfr(), site.peer.serial());
            site.follow(&[format!("http://{}",master.address)],"");
            let t=std::time::Instant::now();
            let ran=site.run(&["check"]);
            assert_eq!(before,(site.peer.axfr(), site.peer.serial()));
            format!("--- {title}: {} {:?}\n{}{}\n",ran.code,t.elapsed(),ran.stdout,ran.stderr)
        };
        for (grant,clock) in [(Grant::Exact,0),(Grant::TransferOnly,0),(Grant::UpdateOnly,0),(Grant::None,0),(Grant::Exact,120),(Grant::Exact,3600),(Grant::Exact,-3600),(Grant::Exact,-70)] {
            let site=Site::start(peer,&Setup{grant,clock,records:"printer A 10.0.0.7",..Setup::default()});
            all+=&show(&format!("{grant:?} {clock}"),&site);
            if (grant,clock)==(Grant::Exact,0) {
                site.run(&["sync"]);
                all+=&show("after sync",&site);
                site.configure(&site.peer.addr().to_string(), site.peer.wrong_secret_key_file(),"","");
                all+=&show("wrong",&site);
                site.configure(&site.peer.addr().to_string(), site.peer.unknown_key_file(),"","");
                all+=&show("unknown",&site);
                site.configure(&site.peer.addr().to_string(), site.peer.unknown_key_file(),&format!("transfer_key_file={:?}",site.peer.key_file()),"");
                all+=&show("unknown update",&site);
                site.configure(&site.peer.addr().to_string(), site.peer.key_file(),"zone=\"absent\"","[zone]\ndomain=\"absent\"");
                all+=&show("zone",&site);
                site.configure(&site.peer.addr().to_string(), site.peer.key_file(),"protect=[\"search*.marathon.mesos\"]","[zone]\nttl=\"5s\"\n[server]\nlisten=[\"127.0.0.1:0\"]");
                all+=&show("protect",&site);
            }
        }
        let site=Site::start(peer,&Setup{types:&["A","AAAA","TXT"],..Setup::default()});
        all+=&show("no SRV",&site);
        std::fs::write(format!("/tmp/probe3-{peer:?}.txt"), all).unwrap();
    });
}
